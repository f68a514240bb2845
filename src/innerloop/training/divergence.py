"""Held-out tasks on which adaptation diverged: they are counted, since a single one can dominate a mean loss."""

import numpy as np
from jaxtyping import Bool

from innerloop.engine.curve import Curve

FACTOR = 100
"""The factor by which a loss must grow; diverging gradient descent multiplies it at every step."""


def diverged(curve: Curve) -> Bool[np.ndarray, " tasks"]:
    """Which tasks diverged.

    A task diverged if its last score of any kind, or its return at any step, is not finite; or if its last loss is
    above `FACTOR` times both the mean loss before adaptation and the 10th percentile after it. The curve starts at
    step 0.
    """
    counted = lambda name, scores: scores if name == "return" else scores[:, -1:]
    others = [np.isfinite(counted(name, x)).all(1) for name, x in curve.scores.items() if name != "loss"]
    broken = ~np.all(others, axis=0) if others else np.zeros(curve.tasks, bool)
    if "loss" not in curve.scores:
        return broken
    first, last = curve.scores["loss"][:, 0], curve.scores["loss"][:, -1]
    sound = np.isfinite(first) & np.isfinite(last)
    usual = max(first[sound].mean(), np.quantile(last[sound], 0.1, method="lower")) if sound.any() else 0.0
    exploded = last > FACTOR * usual if usual > 0 else np.zeros(last.shape, bool)
    return np.asarray(broken | exploded | ~np.isfinite(last))


def means(curve: Curve) -> dict[str, float]:
    """The mean over tasks of the last score of each kind, and the number of tasks that diverged, as `diverged`.

    Tasks that diverged are excluded, except from accuracies, which are bounded: one that is not finite counts as 0.
    NaN if no task is left.
    """
    lost = diverged(curve)
    bounded = lambda x: np.where(np.isfinite(x), x, 0.0)
    kept = {
        name: bounded(x[:, -1]) if name == "accuracy" else x[~lost, -1] for name, x in curve.scores.items()
    }
    found = {name: float(x.mean()) if len(x) else float("nan") for name, x in kept.items()}
    return found | {"diverged": float(lost.sum())}
