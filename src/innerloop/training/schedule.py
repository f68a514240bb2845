"""When a run logs, validates, saves and ends, in meta-steps."""

from dataclasses import dataclass

from innerloop.config.schema import Config


@dataclass(frozen=True)
class Schedule:
    """What the training loop knows of a run's settings. Zero stands for never.

    Attributes:
        meta_steps: the length of the run.
        log_every: the length of a block, after which its means are logged.
        checkpoint_every: the distance of checkpoints, at ends of blocks.
        validate_every: the distance of validations, at ends of blocks.
        validation_tasks: the number of tasks of a validation.
        snapshots: initialisations to keep, evenly over the run.
    """

    meta_steps: int
    log_every: int
    checkpoint_every: int
    validate_every: int
    validation_tasks: int
    snapshots: int = 0

    @classmethod
    def of(cls, config: Config) -> "Schedule":
        """That of a config."""
        own, tasks = config.outer, config.evaluation.validation_tasks
        every = own.log_every, own.checkpoint_every, own.validate_every
        return cls(own.meta_steps, *every, validation_tasks=tasks, snapshots=own.snapshots)

    @property
    def most(self) -> int:
        """Meta-steps that are compiled for."""
        return max(1, min(self.log_every, self.meta_steps))

    def length(self, end: int) -> int:
        """Meta-steps of the block that ends there."""
        return end - (end - 1) // self.log_every * self.log_every

    def saves(self, end: int) -> bool:
        """Whether a checkpoint is due at the end of a block."""
        return due(self.checkpoint_every, end, self.length(end)) or end == self.meta_steps

    def validates(self, end: int) -> bool:
        """Whether a validation is due at the end of a block."""
        every = self.validate_every
        return due(every, end, self.length(end)) or (every > 0 and end == self.meta_steps)

    def keeps(self, end: int) -> bool:
        """Whether a snapshot is due at the end of a block."""
        return reached(self.snapshots, self.meta_steps, end, self.length(end))


def due(every: int, step: int, length: int) -> bool:
    """Whether a multiple of `every` was reached or passed in the last `length` steps."""
    return every > 0 and step // every > (step - length) // every


def reached(parts: int, total: int, step: int, length: int) -> bool:
    """Whether the end of one of `parts` equal parts of the run was reached or passed in the last `length` steps."""
    return step * parts // total > (step - length) * parts // total
