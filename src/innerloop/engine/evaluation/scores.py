"""Check, before anything runs, that a user's score returns numbers by name for one task."""

from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp
from jaxtyping import Array, PyTree

from innerloop.engine.algorithm import Algorithm
from innerloop.engine.losses.loss import with_state
from innerloop.engine.types import Params, Task
from innerloop.errors import InnerloopError, explained

Score = Callable[[Params, Task], dict[str, Array]]
"""`score(adapted, task) -> {"accuracy": ..., "loss": ...}`, one number each for one task."""

HINT = "return a dictionary of numbers, such as {'accuracy': accuracy}, computed with jax.numpy"


def start_shapes(algorithm: Algorithm, params: Params, task: PyTree) -> PyTree:
    """The shapes of what a score gets before the first step; the task may itself be shapes."""
    start = lambda params, task: with_state(algorithm.start(params, task.support), algorithm.loss_fn)
    return jax.eval_shape(start, params, task)


def score_shapes(score: Score, adapted: PyTree, task: Task) -> dict[str, jax.ShapeDtypeStruct]:
    """The scores' shapes and types.

    Raises:
        InnerloopError: if the score cannot be traced, or does not return one real number for each name.
    """
    usual = (TypeError, ValueError, AttributeError, LookupError)
    with explained("score", "cannot be computed", hint=HINT, errors=usual):
        shapes = jax.eval_shape(lambda *args: score(*args), adapted, task)
    if not isinstance(shapes, Mapping) or not shapes:
        raise InnerloopError("score", "must return scores by name", got=_described(shapes), hint=HINT)
    real = lambda dtype: any(jnp.issubdtype(dtype, kind) for kind in (jnp.floating, jnp.integer, jnp.bool_))
    for name, shape in shapes.items():
        if not isinstance(shape, jax.ShapeDtypeStruct) or shape.shape != () or not real(shape.dtype):
            raise InnerloopError(
                "score", f"{name!r} must be one real number", got=_described(shape), hint=HINT
            )
    return dict(shapes)


def _described(value: PyTree) -> str:
    """Describe what a score returned."""
    if isinstance(value, jax.ShapeDtypeStruct):
        return f"{value.dtype}{list(value.shape)}"
    return f"{'an empty' if value == {} else 'a'} {type(value).__name__}"
