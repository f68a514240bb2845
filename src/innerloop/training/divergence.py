"""Held-out tasks on which adaptation diverged: they are counted, since a single one can be all of a mean loss."""

import numpy as np
from jaxtyping import Bool

from innerloop.engine.evaluate import Curve

FACTOR = 100
"""By how much a loss must grow; gradient descent that diverges multiplies it at every step."""


def diverged(curve: Curve) -> Bool[np.ndarray, " tasks"]:
    """Which tasks diverged.

    Their last score of any kind is not finite, or a return at any step; or the last loss is above `FACTOR` times both
    the mean loss before adaptation and what a tenth of the tasks stay below after it. The curve begins at step 0.
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
    """The last score of each kind, as a mean over tasks, and how many tasks diverged, as `diverged`.

    Tasks that diverged are left out, but for accuracies, which are bounded. NaN if none is left.
    """
    lost = diverged(curve)
    kept = {name: x[:, -1] if name == "accuracy" else x[~lost, -1] for name, x in curve.scores.items()}
    found = {name: float(x.mean()) if len(x) else float("nan") for name, x in kept.items()}
    return found | {"diverged": float(lost.sum())}
