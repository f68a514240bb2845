"""The progress of a run."""

from dataclasses import dataclass, field

from innerloop.engine.types import Params


@dataclass(frozen=True)
class Progress:
    """The progress of a run after a block of meta-steps.

    Attributes:
        step: the number of meta-steps so far.
        total: their number in the whole run.
        tasks_per_second: the speed; NaN until the second dispatch is timed.
        seconds_left: the time left; NaN until then.
        metrics: the line of metrics of this block.
        environment_steps_per_second: the speed in reinforcement learning; 0 elsewhere.
        params: the meta-parameters after the block. The next block overwrites them, so keep a copy,
            `jax.device_get(progress.params)`.
    """

    step: int
    total: int
    tasks_per_second: float
    seconds_left: float
    metrics: dict[str, float]
    environment_steps_per_second: float = 0.0
    params: Params = field(default=None, repr=False)
