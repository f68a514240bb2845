"""Held-out tasks on which adaptation diverged: they are counted, since a single one can dominate a mean loss."""

import numpy as np

from innerloop.engine.evaluation.curve import Curve


def means(curve: Curve) -> dict[str, float]:
    """The mean over tasks of the last score of each kind, and the number of tasks that diverged (`Curve.diverged`).

    Tasks that diverged are excluded, except from accuracies, which are bounded: one that is not finite counts as 0.
    NaN if no task is left.
    """
    lost = curve.diverged
    bounded = lambda x: np.where(np.isfinite(x), x, 0.0)
    kept = {
        name: bounded(x[:, -1]) if name == "accuracy" else x[~lost, -1] for name, x in curve.scores.items()
    }
    found = {name: float(x.mean()) if len(x) else float("nan") for name, x in kept.items()}
    return found | {"diverged": float(lost.sum())}
