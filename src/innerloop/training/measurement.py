"""A measured adaptation curve, with everything that its numbers depend on."""

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from innerloop.config.schema import Normalization, Precision
from innerloop.io.text import counted, with_interval
from innerloop.io.untrusted import JsonObject


class Band(NamedTuple):
    """Means over tasks after each recorded inner step, and half-widths of their 95 % confidence intervals."""

    mean: list[float]
    ci95: list[float]


COMMON = (
    "seed",
    "precision",
    "classes",
    "diverged_tasks",
    "source",
    "preset",
    "algorithm",
    "trained_meta_steps",
    "seconds",
)


@dataclass(frozen=True, kw_only=True, repr=False)
class Measurement(ABC):
    """The common part of measurements of scores and returns."""

    score: str
    """The main score: `accuracy`, `loss` for regression, or `return` in reinforcement learning."""
    steps: list[int]
    """The recorded numbers of inner steps."""
    curves: dict[str, Band]
    """The curve of each score at these steps, by name."""
    tasks: int
    """The number of tasks: as many as asked for, or all groups of a table if there are fewer."""
    inner_steps: int
    inner_learning_rate: float
    seed: int
    """The seed of the tasks."""
    precision: Precision = "float32"
    """The precision of matrix products and convolutions, in training and at test."""
    classes: str
    """The set of classes: `test`, `validation` or `train`."""
    diverged_tasks: int
    """How many tasks' adaptation diverged (`innerloop.engine.evaluation.curve`); the means include them."""
    broken_trajectories: int = 0
    """In reinforcement learning, the number of trajectories that broke; the means are over the others."""
    source: str
    preset: str
    algorithm: str
    trained_meta_steps: int | None
    seconds: float
    task_scores: np.ndarray = field(default_factory=lambda: np.zeros(0), compare=False)
    """`[tasks]`: the score of each task after the last inner step, for paired comparisons."""

    def __repr__(self) -> str:
        value = with_interval(self.value, self.ci95, self.score)
        tasks = f"over {counted(self.tasks, f'{self.classes} task')}"
        return f"<{self.score} of {self.source}: {value} after {counted(self.inner_steps, 'inner step')} {tasks}>"

    @property
    def curve(self) -> Band:
        """The curve of the main score."""
        return self.curves[self.score]

    @property
    def value(self) -> float:
        """The score after the last inner step."""
        return self.curve.mean[-1]

    @property
    def ci95(self) -> float:
        """Half-width of the 95 % confidence interval of `value`."""
        return self.curve.ci95[-1]

    def at(self, step: int) -> tuple[float, float] | None:
        """Mean and half-width after `step` inner steps, or None if that step was not recorded."""
        if step not in self.steps:
            return None
        i = self.steps.index(step)
        return self.curve.mean[i], self.curve.ci95[i]

    @abstractmethod
    def to_json(self) -> JsonObject:
        """The record that `innerloop evaluate --json` prints and that result files hold."""


@dataclass(frozen=True, kw_only=True, repr=False)
class ScoreMeasurement(Measurement):
    """Accuracy and loss, or loss alone, on query examples. A condition that does not apply to the tasks is None."""

    groups: int | None = None
    """The number of groups of the table in the measured set."""
    normalization: Normalization | None = None
    """The batch that gives a query's normalisation statistics."""
    ways: int | None = None
    """Classes per episode."""
    shots: int
    """Support examples per class (sinusoids: per task; tables: of the largest support set)."""
    queries: int
    """Query examples per class (sinusoids: per task; tables: of the largest query set)."""
    rotations: bool | None = None
    """Whether held-out classes are rotated; None if the training classes are not."""

    def to_json(self) -> JsonObject:
        """The final score under its name, the conditions that apply, and all points under `curve`."""
        told = fields_of(self, ("tasks", "groups", "normalization", "ways", "shots"))
        told["queries" if self.ways is None else "queries_per_class"] = self.queries
        told["rotations"] = self.rotations
        told = {name: value for name, value in told.items() if value is not None}
        told |= fields_of(self, ("inner_steps", "inner_learning_rate", *COMMON))
        bands = {name: band._asdict() for name, band in self.curves.items()}
        return {self.score: self.value, "ci95": self.ci95} | told | {"curve": {"steps": self.steps, **bands}}


@dataclass(frozen=True, kw_only=True, repr=False)
class ReturnMeasurement(Measurement):
    """Undiscounted returns of a policy after 0 to n updates."""

    trajectories: int
    restarts: bool
    horizon: int
    reward: str
    later_learning_rate: float

    def to_json(self) -> JsonObject:
        """The whole curve under `returns` and `ci95`, the conditions, and `broken_trajectories` if there were any."""
        curve = {"returns": self.curve.mean, "ci95": self.curve.ci95, "tasks": self.tasks}
        names = ("trajectories", "restarts", "horizon", "reward")
        names += ("inner_steps", "inner_learning_rate", "later_learning_rate", *COMMON)
        broken = ("broken_trajectories",) if self.broken_trajectories else ()
        return curve | {"updates": self.steps} | fields_of(self, (*names, *broken))


def fields_of(measurement: Measurement, names: tuple[str, ...]) -> JsonObject:
    """The named fields, in this order."""
    return {name: getattr(measurement, name) for name in names}
