"""Checks of random keys."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PRNGKeyArray

from innerloop.errors import InnerloopError

MaybeKey = PRNGKeyArray | None
"""A key for what may be random, such as a loss; None if it is not."""


def check_key(key: object, who: str) -> None:
    """Raise InnerloopError, on behalf of `who`, unless this is a single `jax.random` key, typed or raw."""
    array = key if isinstance(key, jax.Array | np.ndarray) else None
    if array is not None and _is_key(array):
        return
    got = repr(key) if array is None else f"{array.dtype} of shape {array.shape}"
    raise InnerloopError(who, "`key` must be a single jax.random key", got=got, hint="pass jax.random.key(0)")


def _is_key(array: np.ndarray | jax.Array) -> bool:
    """Whether an array is a single key, typed or raw."""
    if jnp.issubdtype(array.dtype, jax.dtypes.prng_key):
        return array.shape == ()
    implementation: str = jax.config.jax_default_prng_impl  # pyright: ignore[reportAttributeAccessIssue]
    return array.dtype == jnp.uint32 and array.shape == _raw_shape(implementation)


@functools.cache
def _raw_shape(implementation: str) -> tuple[int, ...]:
    """The shape of raw keys."""
    return jax.eval_shape(lambda: jax.random.key_data(jax.random.key(0, impl=implementation))).shape
