"""Minibatches of a support set, taken in order; the padding of a smaller task is never among them."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, PyTree

from innerloop.engine.types import Batch


def minibatch_of_step(support: PyTree, i: Array, size: int) -> PyTree:
    """The examples of step i, wrapping around at the end; the whole support set if it is not larger than `size`.

    Args:
        support: a pytree with a leading axis `support` on every leaf; a `Batch` may have a mask.
        i: the number of the inner step, a scalar.
        size: the number of examples in a minibatch.
    """
    examples = jax.tree.leaves(support)[0].shape[0]
    places = jnp.arange(min(size, examples))
    if isinstance(support, Batch) and support.mask is not None:
        return _of_counted(support, support.mask, i * size + places)
    rows = (i * size + places) % examples
    return jax.tree.map(lambda x: jnp.asarray(x)[rows], support)


def _of_counted(support: Batch, mask: Array, places: Array) -> Batch:
    """The examples at these places in the list of those that count, wrapping around at its end.

    Examples are repeated if too few count to fill the minibatch, but no repetition counts.
    """
    counts = jnp.asarray(mask).reshape(len(mask), -1).any(1)
    count = jnp.sum(counts)
    in_order = jnp.argsort(~counts)  # stable: those that count come first, in their order
    rows = in_order[places % jnp.maximum(count, 1)]
    batch = jax.tree.map(lambda x: jnp.asarray(x)[rows], support)
    once = (jnp.arange(len(rows)) < count).reshape(-1, *[1] * (mask.ndim - 1))
    return batch._replace(mask=jnp.where(once, batch.mask, jnp.zeros((), mask.dtype)))
