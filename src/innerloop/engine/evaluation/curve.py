"""The scores of held-out tasks after each recorded number of inner steps."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Bool

from innerloop.engine.evaluation.intervals import half_width, mean_over_tasks
from innerloop.errors import check_choice
from innerloop.io.text import counted, diverged, with_interval

FACTOR = 100
"""The factor by which a loss must grow for a task to count as diverged; diverging gradient descent multiplies it at
every step."""


@dataclass(frozen=True)
class Curve:
    """The scores of every task after certain numbers of inner steps.

    Attributes:
        steps: the numbers of inner steps.
        scores: arrays by name, each `[tasks, len(steps)]`.
        counts: whole numbers of the same shape by name: what the scores leave out (`innerloop.rl.evaluate`).
    """

    steps: tuple[int, ...]
    scores: dict[str, np.ndarray]
    counts: dict[str, np.ndarray] = field(default_factory=dict)

    def __repr__(self) -> str:
        if not (self.steps and self.tasks):
            return "<Curve without scores>"
        means = [(name, self.mean(name), self.ci95(name)) for name in self.scores]
        at = lambda i: ", ".join(
            f"{name} {with_interval(float(mean[i]), float(ci95[i]), name)}" for name, mean, ci95 in means
        )
        ends = sorted({0, len(self.steps) - 1})
        scores = "; ".join(f"{at(i)} after {counted(self.steps[i], 'step')}" for i in ends)
        lost = diverged(int(self.diverged.sum()), self.tasks)
        return f"<Curve over {counted(self.tasks, 'task')}: {'; '.join(filter(None, (scores, lost)))}>"

    @property
    def tasks(self) -> int:
        """The number of tasks."""
        return len(next(iter(self.scores.values()), ()))

    @property
    def nonfinite(self) -> Bool[np.ndarray, " tasks"]:
        """Which tasks have a score that is not finite, at any recorded step."""
        return ~np.all([np.isfinite(scores).all(1) for scores in self.scores.values()], axis=0)

    @property
    def diverged(self) -> Bool[np.ndarray, " tasks"]:
        """On which tasks adaptation diverged.

        A task's last score of any kind, or its return at any step, is not finite; or its last loss is above `FACTOR`
        times both the mean first loss (that before adaptation, if step 0 is recorded) and the 10th percentile of the
        last losses.
        """
        counted = lambda name, scores: scores if name == "return" else scores[:, -1:]
        broken = ~np.all([np.isfinite(counted(name, x)).all(1) for name, x in self.scores.items()], axis=0)
        if "loss" not in self.scores or not self.steps:
            return broken
        first, last = self.scores["loss"][:, 0], self.scores["loss"][:, -1]
        sound = np.isfinite(first) & np.isfinite(last)
        if not sound.any():
            return broken
        usual = max(first[sound].mean(dtype=float), np.quantile(last[sound], 0.1, method="lower"))
        return broken | (last > FACTOR * usual) if usual > 0 else broken

    def mean(self, name: str) -> np.ndarray:
        """Mean over tasks, `[len(steps)]`, in float64."""
        return mean_over_tasks(self._scores(name))

    def ci95(self, name: str) -> np.ndarray:
        """Half-width of the 95 % interval of the mean by Student's t, `[len(steps)]`, in float64."""
        return half_width(self._scores(name))

    def _scores(self, name: str) -> np.ndarray:
        """The scores of this name. Raises InnerloopError if there are none."""
        check_choice("Curve", "name", name, self.scores)
        return self.scores[name]


def join(curves: Sequence[Curve]) -> Curve:
    """Concatenate curves over different tasks."""
    joined = lambda parts: {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    return Curve(curves[0].steps, joined([c.scores for c in curves]), joined([c.counts for c in curves]))
