"""The progress of a run."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Progress:
    """The progress of a run after a block. Speeds and remaining time are NaN until the second dispatch is timed."""

    step: int
    total: int
    tasks_per_second: float
    seconds_left: float
    metrics: dict[str, float]
    environment_steps_per_second: float = 0.0
