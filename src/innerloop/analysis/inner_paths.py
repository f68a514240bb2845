"""Inner-loop paths of several tasks in one two-dimensional projection.

The paper sketches them (figure 1): under rapid learning the outer loop brings theta near the tasks' solutions and
the inner loop moves far, in a different direction for each task; under feature reuse the features are already good,
and the inner loop hardly moves them. Here the same picture is measured, for the body and for the head:

    wide   x: along the outer loop, from the initial weights to theta; y: the principal direction of the inner loops,
           orthogonal to x;
    close  the two principal directions of the inner loops around theta.

Lengths are in units of the norm of theta's body or head, or absolute if that is zero. A projection shortens paths,
since those of different tasks are mostly orthogonal to each other: `lengths` gives the true lengths, and `shown` the
share of the inner loops' squared length that the projection keeps.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PRNGKeyArray

from innerloop.analysis.analyzed_model import AnalyzedModel
from innerloop.analysis.progress import OnProgress, no_progress
from innerloop.analysis.weight_movement import flat_vector
from innerloop.engine.diagnosis import Diverged
from innerloop.engine.evaluation.evaluate import steps_to_record
from innerloop.engine.losses.loss import params_of
from innerloop.engine.types import Params, Task
from innerloop.io.untrusted import JsonObject


def inner_paths(
    model: AnalyzedModel,
    *,
    num_tasks: int = 8,
    key: PRNGKeyArray,
    outer: Sequence[Params] = (),
    on_progress: OnProgress = no_progress,
) -> JsonObject:
    """The coordinates of inner-loop paths, with theta at the origin.

    Args:
        model: the model.
        num_tasks: the number of held-out tasks.
        key: determines the tasks.
        outer: parameters in the course of training, first to last (empty: the model's initial weights, if known).
        on_progress: progress callback.

    Returns:
        `{"steps": [...], "body": PART, "head": PART}` with PART = `{"outer": [point][2], "wide": [task][step][2],
        "close": [task][step][2], "lengths": {"outer", "inner"}, "shown": {"wide", "close"}, "relative": bool}`;
        `relative` says whether lengths are in units of the norm of theta's part, which is not zero.

    Raises:
        Diverged: if a path is not finite.
    """
    outer = list(outer) or ([] if model.initial is None else [model.initial])
    recorded = steps_to_record(model.algorithm.inner.steps)
    layers = model.layers

    def parts(params: Params) -> dict[str, Array]:
        leaves = layers.parts(params)
        return {
            "body": flat_vector([x for name in layers.body for x in leaves[name]]),
            "head": flat_vector(leaves[layers.head]),
        }

    def one(params: Params, task: Task, key: PRNGKeyArray) -> dict[str, Array]:
        start = parts(params_of(model.start(params, task)))
        observe = lambda now, i: {name: x - start[name] for name, x in parts(params_of(now)).items()}
        seen = model.algorithm.trajectory(params, task.support, observe, key=key).observed
        return jax.tree.map(lambda x: x[jnp.asarray(recorded)], seen)

    trajectories = model.collect(one, num_tasks=num_tasks, key=key, on_progress=on_progress)
    here = parts(model.initialization(model.params))
    thetas = [parts(model.initialization(params)) for params in outer]
    before = [{name: np.asarray(x - here[name]) for name, x in theta.items()} for theta in thetas]
    found = {
        name: _coordinates(trajectories[name], [b[name] for b in before], float(jnp.linalg.norm(here[name])))
        for name in ("body", "head")
    }
    return {"steps": list(recorded), **found}


def _coordinates(trajectories: np.ndarray, before: list[np.ndarray], norm: float) -> JsonObject:
    """Coordinates of one part from its paths `[tasks, steps, parameters]` and outer-loop points, with theta at 0."""
    if not np.isfinite(trajectories).all():
        raise Diverged("inner_paths", "adaptation diverged", hint="lower the inner step size")
    unit = norm or 1.0  # a head may start at zero
    trajectories, before = trajectories / unit, [b / unit for b in before]
    flat = trajectories.reshape(-1, trajectories.shape[-1])
    close = _principal(flat, 2)
    x = before[0] if before else close[0]
    x = x / max(np.linalg.norm(x), 1e-12)
    y = _principal(flat - np.outer(flat @ x, x), 1)[0]
    wide = np.stack([-x, y]) if before else np.stack([x, y])  # the outer loop comes from the left
    ends = trajectories[:, -1]
    return {
        "outer": [(wide @ b).tolist() for b in before] + [[0.0, 0.0]] * bool(before),
        "wide": (trajectories @ wide.T).tolist(),
        "close": (trajectories @ close.T).tolist(),
        "lengths": {
            "outer": float(np.linalg.norm(before[0])) if before else None,
            "inner": float(np.linalg.norm(ends, axis=1).mean()),
        },
        "shown": {"wide": _explained_share(ends, wide), "close": _explained_share(ends, close)},
        "relative": norm > 0,
    }


def _principal(rows: np.ndarray, count: int) -> np.ndarray:
    """The leading right singular vectors of `rows`, `[count, parameters]`; zero beyond their rank."""
    _, singular, right = np.linalg.svd(rows, full_matrices=False)
    found = np.zeros((count, rows.shape[1]), rows.dtype)
    for i in range(min(count, len(singular))):
        if singular[i] > 1e-9 * max(singular[0], 1e-12):
            sign = 1 if right[i].sum() >= 0 else -1  # so that it does not depend on the machine
            found[i] = sign * right[i]
    return found


def _explained_share(ends: np.ndarray, axes: np.ndarray) -> float | None:
    """The fraction of the squared length that the axes keep; None if nothing moves."""
    whole = float(np.sum(ends**2))
    return float(np.sum((ends @ axes.T) ** 2)) / whole if whole > 0 else None
