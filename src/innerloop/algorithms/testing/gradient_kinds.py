"""Which gradient an algorithm returns if it is not the meta-gradient."""

from typing import Literal

import jax
import numpy as np
from jaxtyping import PyTree

from innerloop.algorithms.testing.finite_differences import unit
from innerloop.engine.algorithm import Algorithm
from innerloop.engine.keys import MaybeKey
from innerloop.engine.losses.loss import Adapted, params_of, with_params, with_state
from innerloop.engine.pytree import subtract
from innerloop.engine.types import Params, Task

Kind = Literal["exact", "first order", "displacement", "joint", "wrong"]


def name_of(algorithm: Algorithm, params: Params, task: Task, grads: PyTree, key: MaybeKey) -> Kind:
    """Which gradient this is, if not the meta-gradient."""
    try:
        others = _other_gradients(algorithm, params, task, key)
    except Exception:  # an algorithm with its own objective need not have a loss on the query set
        return "wrong"
    grads = algorithm.initialization(grads)
    for kind, other in others:
        angle, ratio = angle_and_ratio(grads, other)
        if angle < 1e-4 and (kind == "displacement" or abs(ratio - 1) < 1e-6):
            return kind
    return "wrong"


def _other_gradients(
    algorithm: Algorithm, params: Params, task: Task, key: MaybeKey
) -> tuple[tuple[Kind, PyTree], ...]:
    """The gradients that other algorithms descend."""
    adapted = jax.jit(algorithm.adapt)(params, task.support, key=key)
    start = with_state(algorithm.initialization(params), algorithm.loss_fn)

    @jax.jit
    def slope(at: Params | Adapted) -> Params:
        query = lambda params: algorithm.query_loss(with_params(at, params), task.query, key=key)
        return jax.grad(query)(params_of(at))

    return (
        ("first order", slope(adapted)),
        ("joint", slope(start)),
        ("displacement", subtract(params_of(start), params_of(adapted))),
    )


def angle_and_ratio(a: PyTree, b: PyTree) -> tuple[float, float]:
    """Degrees between two trees, and |a| / |b|."""
    x, y = (np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(tree)]) for tree in (a, b))
    # The half-angle form: arccos of a cosine near 1 would lose half the digits.
    angle = 2 * np.arctan2(np.linalg.norm(unit(x) - unit(y)), np.linalg.norm(unit(x) + unit(y)))
    return float(np.degrees(angle)), float(np.linalg.norm(x) / (np.linalg.norm(y) or np.inf))
