"""Runs that differ only in their seed as one result, and results compared in pairs."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from innerloop.engine.evaluation.intervals import half_width
from innerloop.io.text import with_interval
from innerloop.io.untrusted import JsonObject
from innerloop.training.measurement import Band, Measurement, ScoreMeasurement
from innerloop.training.storage import weights
from innerloop.training.trained import Trained


@dataclass(frozen=True)
class Result:
    """One initialisation with its measurement, or the mean of several that differ only in their seed.

    Attributes:
        label: its name in figures and tables.
        trained: the run (for several seeds, the first).
        measurement: scores on held-out tasks. For several seeds, means over seeds, with standard deviations in place
            of intervals.
        metrics: what training logged.
        environment: the environment of the run.
        baseline: whether it is what training started from.
        seeds: the results of the individual seeds, if there are several.
    """

    label: str
    trained: Trained
    measurement: Measurement
    metrics: list[JsonObject]
    environment: JsonObject
    baseline: bool = False
    seeds: tuple["Result", ...] = ()

    @property
    def members(self) -> tuple["Result", ...]:
        """The results of the individual runs."""
        return self.seeds or (self,)

    @property
    def score(self) -> str:
        """The name of the score: `accuracy`, `loss` for regression, or `return` in reinforcement learning."""
        return self.measurement.score

    @property
    def value(self) -> float:
        """The score after the last inner step."""
        return self.measurement.value

    @property
    def ci95(self) -> float:
        """Half-width of the 95 % interval of `value`; for several seeds, their standard deviation."""
        return self.measurement.ci95

    def at(self, step: int) -> tuple[float, float] | None:
        """Mean and interval after `step` inner steps, if they were recorded."""
        return self.measurement.at(step)

    def shown_at(self, step: int) -> str:
        """The same in words; empty if that step was not recorded."""
        return "" if (point := self.at(step)) is None else with_interval(*point, self.score)


def group_by_seed(runs: Sequence[Trained]) -> list[list[Trained]]:
    """The runs in lists whose members differ only in their seed; runs with the same seed stay apart."""
    found: dict[object, list[Trained]] = {}
    for trained in runs:
        config = trained.config
        alike = (
            weights.deciding(replace(config, seed=0)),
            config.model.start,
            config.data.folder,
            config.data.file,
        )
        found.setdefault(alike, []).append(trained)
    differ = lambda family: len({trained.config.seed for trained in family}) == len(family)
    return [
        part for family in found.values() for part in ([family] if differ(family) else [[t] for t in family])
    ]


def average_over_seeds(label: str, runs: Sequence[Result]) -> Result:
    """The mean over runs with several seeds; a single run unchanged."""
    first, found = runs[0], [run.measurement for run in runs]
    if len(runs) == 1:
        return first
    measurement = replace(
        first.measurement,
        curves={name: _spread([m.curves[name] for m in found]) for name in first.measurement.curves},
        task_scores=np.mean([m.task_scores for m in found], axis=0),
        diverged_tasks=sum(m.diverged_tasks for m in found),
        broken_trajectories=sum(m.broken_trajectories for m in found),
        seconds=sum(m.seconds for m in found),
    )
    return Result(label, first.trained, measurement, [], first.environment, seeds=tuple(runs))


def _spread(bands: Sequence[Band]) -> Band:
    """Mean and standard deviation over seeds."""
    means = np.array([band.mean for band in bands], np.float64)
    return Band(means.mean(0).tolist(), means.std(0, ddof=1).tolist())


class Difference(NamedTuple):
    """How much better one result is than another, in pairs.

    Attributes:
        mean: the mean over pairs, positive if the first is better.
        ci95: half-width of its 95 % interval.
        pairs: what the pairs are, in words.
    """

    mean: float
    ci95: float
    pairs: str

    @property
    def sign(self) -> int:
        """1 if the first is better beyond the interval, -1 if the second is, else 0."""
        return 0 if not abs(self.mean) > self.ci95 else 1 if self.mean > 0 else -1


def same_tasks(a: Result, b: Result) -> bool:
    """Whether two results were measured on the same tasks, as far as the runs tell."""
    found = [run.environment.get("data") for run in (a, b)]
    hashes = [data.get("test") for data in found if isinstance(data, dict)]
    if len(hashes) == 2 and all(hashes) and hashes[0] != hashes[1]:
        return False
    return _drawn_how(a) == _drawn_how(b)


def _drawn_how(result: Result) -> tuple[object, ...]:
    """What decides which tasks a measurement draws, besides the data."""
    found, data = result.measurement, result.trained.config.data
    queries = found.queries if isinstance(found, ScoreMeasurement) else None
    return (
        found.seed,
        found.classes,
        found.tasks,
        queries,
        data.split,
        data.min_examples,
        data.task,
        data.missing,
    )


def compare(a: Result, b: Result) -> Difference:
    """Compare two results.

    If the two share at least two seeds, the pairs are the seeds, and the interval covers the randomness of training.
    Otherwise the pairs are the tasks if they are the same, and the results count as independent if they are not.
    """
    sign = -1 if a.score == "loss" else 1
    same = same_tasks(a, b)
    first, second = ({run.trained.config.seed: run.value for run in result.members} for result in (a, b))
    common = sorted(first.keys() & second.keys())
    if len(common) > 1:
        gaps, pairs = [first[seed] - second[seed] for seed in common], f"seed by seed, {len(common)} seeds"
        pairs += "" if same else ", on other tasks"
    elif not same:
        return Difference(sign * (a.value - b.value), math.hypot(a.ci95, b.ci95), "not in pairs: other tasks")
    else:
        with np.errstate(invalid="ignore"):  # infinity minus infinity, for tasks that diverged
            gaps = a.measurement.task_scores - b.measurement.task_scores
        pairs = "task by task"
    found = sign * np.asarray(gaps, np.float64)
    with np.errstate(invalid="ignore"):
        return Difference(float(found.mean()), float(half_width(found)), pairs)
