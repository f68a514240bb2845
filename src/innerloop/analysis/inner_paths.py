"""Inner-loop paths of several tasks in a shared two-dimensional projection: the two hypotheses as a picture.

The paper draws them by hand (figure 1): under rapid learning the outer loop brings theta near the tasks' solutions and
the inner loop goes far, in a direction of each task's own; under feature reuse theta's features are good as they are,
and the inner loop hardly moves them. Here the same picture is measured, for the body and for the head:

    wide   x: along the outer loop's way, from the initial weights to theta; y: the principal direction of the inner
           loops' ways, orthogonal to x;
    close  the two principal directions of the inner loops' ways around theta.

Lengths are in units of the norm of theta's part (body or head). A projection shortens what is orthogonal to it, and
ways of different tasks mostly are to one another: `lengths` has the true ones, and `shown` the share of the inner
loops' squared length that the projection keeps.
"""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PRNGKeyArray

from innerloop.analysis.analyzed_model import Subject, Watch, unwatched
from innerloop.analysis.weight_movement import vector
from innerloop.engine.evaluate import steps_to_record
from innerloop.engine.types import Params, Task


def inner_paths(
    subject: Subject,
    *,
    tasks: int = 8,
    key: PRNGKeyArray,
    outer: Sequence[Params] = (),
    watch: Watch = unwatched,
) -> dict[str, Any]:
    """The picture's coordinates: `{"steps": [...], "body": PART, "head": PART}`.

    PART: `{"outer": [point][2], "wide": [task][step][2], "close": [task][step][2], "lengths": {"outer", "inner"},
    "shown": {"wide", "close"}}`, theta at the origin. outer: parameters along training, first to last (none: the
    initial weights alone, where the subject has them).
    """
    outer = list(outer) or ([] if subject.initial is None else [subject.initial])
    recorded = steps_to_record(subject.algorithm.inner.steps)
    layers = subject.layers
    split = {"body": layers.owns(layers.body), "head": layers.owns([layers.head])}

    def parts(params: Params) -> dict[str, Array]:
        leaves = layers.parts(params)
        return {
            "body": vector([x for name in layers.body for x in leaves[name]]),
            "head": vector(leaves[layers.head]),
        }

    def one(params: Params, task: Task) -> dict[str, Array]:
        start = parts(subject.theta(params))
        observe = lambda now, i: {name: x - start[name] for name, x in parts(now).items()}
        seen = subject.algorithm.trajectory(params, task.support, observe).observed
        return jax.tree.map(lambda x: x[jnp.asarray(recorded)], seen)

    ways = subject.collect(one, tasks=tasks, key=key, watch=watch)
    here = parts(subject.theta(subject.params))
    thetas = [parts(subject.theta(params)) for params in outer]
    before = [{name: np.asarray(x - here[name]) for name, x in theta.items()} for theta in thetas]
    found = {
        name: _coordinates(ways[name], [b[name] for b in before], float(jnp.linalg.norm(here[name])))
        for name in split
    }
    return {"steps": list(recorded), **found}


def _coordinates(ways: np.ndarray, before: list[np.ndarray], norm: float) -> dict[str, Any]:
    """One part's coordinates from ways `[tasks, steps, parameters]` and the outer loop's points, theta at 0."""
    ways, before = ways / norm, [b / norm for b in before]
    flat = ways.reshape(-1, ways.shape[-1])
    close = _principal(flat, 2)
    x = before[0] if before else close[0]
    x = x / max(np.linalg.norm(x), 1e-12)
    y = _principal(flat - np.outer(flat @ x, x), 1)[0]
    wide = np.stack([-x, y]) if before else np.stack([x, y])  # the outer loop comes from the left
    ends = ways[:, -1]
    return {
        "outer": [(wide @ b).tolist() for b in before] + [[0.0, 0.0]] * bool(before),
        "wide": (ways @ wide.T).tolist(),
        "close": (ways @ close.T).tolist(),
        "lengths": {
            "outer": float(np.linalg.norm(before[0])) if before else None,
            "inner": float(np.linalg.norm(ends, axis=1).mean()),
        },
        "shown": {"wide": _explained_share(ends, wide), "close": _explained_share(ends, close)},
    }


def _principal(rows: np.ndarray, count: int) -> np.ndarray:
    """The leading directions of rows about the origin, `[count, parameters]`; zero where there are no more."""
    _, singular, right = np.linalg.svd(rows, full_matrices=False)
    found = np.zeros((count, rows.shape[1]), rows.dtype)
    for i in range(min(count, len(singular))):
        if singular[i] > 1e-9 * max(singular[0], 1e-12):
            found[i] = right[i] * (
                1 if right[i].sum() >= 0 else -1
            )  # a sign that does not depend on the machine
    return found


def _explained_share(ends: np.ndarray, axes: np.ndarray) -> float | None:
    """How much of the squared length the axes keep; None where nothing moves."""
    whole = float(np.sum(ends**2))
    return float(np.sum((ends @ axes.T) ** 2)) / whole if whole > 0 else None
