"""A scan whose length is known only at run time: one compiled program for all lengths up to a maximum.

How training is split into runs then changes neither its programs nor its results, to the bit.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, PyTree


def scan_up_to(
    body: Callable[[PyTree, None], tuple[PyTree, PyTree]], carry: PyTree, count: Array | None, maximum: int
) -> tuple[PyTree, PyTree]:
    """`jax.lax.scan(body, carry, None, length=count)` for a traced `count` of at most `maximum`.

    Without a `count`, this is an ordinary scan of length `maximum`.

    Returns:
        The last carry, and the outputs of `body`, stacked to `maximum` rows; rows from `count` on are zero.
    """
    if count is None:
        return jax.lax.scan(body, carry, None, length=maximum)
    rows = jax.eval_shape(lambda carry: body(carry, None)[1], carry)
    blank = jax.tree.map(lambda row: jnp.zeros((maximum, *row.shape), row.dtype), rows)

    def one(i: Array, held: tuple[PyTree, PyTree]) -> tuple[PyTree, PyTree]:
        carry, stacked = held
        carry, row = body(carry, None)
        put = lambda all_rows, x: jax.lax.dynamic_update_index_in_dim(all_rows, x, i, 0)
        return carry, jax.tree.map(put, stacked, row)

    return jax.lax.fori_loop(0, count, one, (carry, blank))
