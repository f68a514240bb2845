"""When a run logs, validates, saves and ends, counted in meta-steps."""

from dataclasses import dataclass

from innerloop.config.schema import Config
from innerloop.errors import InnerloopError
from innerloop.io.text import grouped
from innerloop.training.storage.metrics_log import LINES


@dataclass(frozen=True)
class Schedule:
    """The settings of a run that the training loop uses. Zero means never.

    Attributes:
        meta_steps: the length of the run.
        log_every: the length of a block, after which its means are logged.
        checkpoint_every: the interval between checkpoints, which are written at the ends of blocks.
        validate_every: the interval between validations, which run at the ends of blocks.
        validation_tasks: the number of tasks in a validation.
        snapshots: the number of initialisations to keep, evenly spaced over the run.
    """

    meta_steps: int
    log_every: int
    checkpoint_every: int
    validate_every: int
    validation_tasks: int
    snapshots: int = 0

    @classmethod
    def from_config(cls, config: Config) -> "Schedule":
        """The schedule of a config."""
        own, tasks = config.outer, config.evaluation.validation_tasks
        every = own.log_every, own.checkpoint_every, own.validate_every
        return cls(own.meta_steps, *every, validation_tasks=tasks, snapshots=own.snapshots)

    @property
    def max_dispatch(self) -> int:
        """The largest number of meta-steps in one dispatch."""
        return max(1, min(self.log_every, self.meta_steps))

    def check_lines(self, who: str) -> None:
        """Raise InnerloopError, on behalf of the setting of `log_every`, if the log would be too long to be read."""
        lines = -(-self.meta_steps // max(1, self.log_every))
        if lines > LINES:
            wrong = f"a run of {grouped(self.meta_steps)} meta-steps would log {grouped(lines)} lines"
            hint = f"log less often: {grouped(LINES)} lines is the maximum"
            raise InnerloopError(who, wrong, got=self.log_every, hint=hint)

    def block_length(self, end: int) -> int:
        """The number of meta-steps in the block that ends at `end`."""
        return end - (end - 1) // self.log_every * self.log_every

    def saves(self, end: int) -> bool:
        """Whether a checkpoint is due at the end of a block."""
        return due(self.checkpoint_every, end, self.block_length(end)) or end == self.meta_steps

    def validates(self, end: int) -> bool:
        """Whether a validation is due at the end of a block."""
        every = self.validate_every
        return due(every, end, self.block_length(end)) or (every > 0 and end == self.meta_steps)

    def keeps(self, end: int) -> bool:
        """Whether a snapshot is due at the end of a block."""
        return reached(self.snapshots, self.meta_steps, end, self.block_length(end))


def due(every: int, step: int, length: int) -> bool:
    """Whether the last `length` steps reached or passed a multiple of `every`."""
    return every > 0 and step // every > (step - length) // every


def reached(parts: int, total: int, step: int, length: int) -> bool:
    """Whether the last `length` steps reached or passed the end of one of `parts` equal parts of the run."""
    return step * parts // total > (step - length) * parts // total
