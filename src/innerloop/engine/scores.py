"""Check, before anything runs, that a user's score returns numbers by name for one task."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, PyTree

from innerloop.engine.types import Params, Task
from innerloop.errors import InnerloopError, first_line

Score = Callable[[Params, Task], dict[str, Array]]
"""`score(adapted, task) -> {"accuracy": ..., "loss": ...}`, one number each for one task."""

HINT = "return a dictionary of numbers, such as {'accuracy': accuracy}, computed with jax.numpy"


def score_shapes(score: Score, adapted: Params, task: Task) -> dict[str, jax.ShapeDtypeStruct]:
    """The scores' shapes and types.

    Raises:
        InnerloopError: the score cannot be traced, or does not return one real number for each name.
    """
    try:
        shapes = jax.eval_shape(lambda *args: score(*args), adapted, task)
    except (TypeError, ValueError, AttributeError, LookupError) as error:
        if isinstance(error, InnerloopError):
            raise
        wrong = f"cannot be computed ({first_line(error)})"
        raise InnerloopError("score", wrong, hint=HINT) from error
    if not isinstance(shapes, Mapping) or not shapes:
        raise InnerloopError("score", "must return scores by name", got=_described(shapes), hint=HINT)
    for name, shape in shapes.items():
        if not isinstance(shape, jax.ShapeDtypeStruct) or shape.shape != () or not _is_real(shape.dtype):
            raise InnerloopError(
                "score", f"{name!r} must be one real number", got=_described(shape), hint=HINT
            )
    return dict(shapes)


def _is_real(dtype: Any) -> bool:
    """Whether the mean of numbers of this type can be a score; that of keys or complex numbers cannot."""
    return any(jnp.issubdtype(dtype, kind) for kind in (jnp.floating, jnp.integer, jnp.bool_))


def _described(value: PyTree) -> str:
    """Describe what a score returned."""
    if isinstance(value, jax.ShapeDtypeStruct):
        return f"{value.dtype}{list(value.shape)}"
    return f"{'an empty' if value == {} else 'a'} {type(value).__name__}"
