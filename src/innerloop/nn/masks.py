"""Means over the examples of a batch that count, as its mask says."""

import math
from collections.abc import Callable

import jax.numpy as jnp
from jaxtyping import Array, Float

from innerloop.errors import InnerloopError

Mask = Array | None
"""Which examples count, `[examples]` bool, or their weights, `[examples]` numbers of 0 or more; None: all equally."""


def _check_mask(mask: Array, examples: int) -> None:
    """Raise InnerloopError for a mask that is not an array, or has another shape, which would be broadcast."""
    if not hasattr(mask, "dtype"):
        hint = "give the mask as an array, np.asarray(mask)"
        raise InnerloopError("loss", "the mask must be an array", got=type(mask).__name__, hint=hint)
    if mask.shape != (examples,):
        wrong = f"the mask must have shape {(examples,)}"
        hint = "pass mask[:, 0], for example" if mask.ndim == 2 else "give one value per example"
        raise InnerloopError("loss", wrong, got=mask.shape, hint=hint)


def flat_examples(x: Array) -> Float[Array, "examples features"]:
    """Every example as one row, also if there is no example."""
    return x.reshape(x.shape[0], math.prod(x.shape[1:]))


def mean_over_examples(values: Float[Array, " examples"], mask: Mask = None) -> Float[Array, ""]:
    """The mean of the values that count, weighted if the mask holds weights; 0 if none counts, or there is none.

    Args:
        values: one value per example.
        mask: which examples count, `[examples]` bool, or their weights of 0 or more (None: all count equally). An
            example of weight 0 does not count, even if its value is NaN. The gradient of its weight is exact, even if
            all weights are 0 (the result is then their weighted sum), but 0 if its value is not finite.

    Raises:
        InnerloopError: if the mask has another shape.
    """
    if mask is None:
        return jnp.mean(values) if len(values) else jnp.sum(values)
    _check_mask(mask, len(values))
    if mask.dtype == jnp.bool_:
        return jnp.sum(jnp.where(mask, values, 0)) / jnp.maximum(jnp.sum(mask), 1)
    # float16 cannot hold a count above 65504.
    weights = mask.astype(jnp.promote_types(values.dtype, jnp.float32))
    total = jnp.sum(weights)
    given = jnp.where((mask != 0) | jnp.isfinite(values), values, 0)
    return (jnp.sum(weights * given) / jnp.where(total == 0, 1, total)).astype(values.dtype)


def masked_targets(targets: Array, mask: Mask, known: Callable[[Array], Array] = jnp.isfinite) -> Array:
    """The targets, with 0 for those that do not count: they may be NaN, and so would be the gradient.

    Those of weight 0 stay if they are `known`: the gradient of the weight depends on them.
    """
    if mask is None:
        return jnp.asarray(targets)
    _check_mask(mask, len(targets))
    keep = mask.reshape(-1, *[1] * (targets.ndim - 1))
    if mask.dtype != jnp.bool_:
        keep = (keep != 0) | known(targets)
    return jnp.where(keep, targets, jnp.zeros((), targets.dtype))
