r"""A scan that keeps few of its carries: checkpoints through time.

Reverse mode through a scan of k steps keeps k carries. Here only the carry at the start of each of n segments is kept;
the backward pass runs one segment again and keeps the ceil(k / n) carries of that one, so that n + ceil(k / n) are held
at a time, about 2 sqrt(k) for n = sqrt(k), for one more run of the steps. The result is the same to the last bit of
what the compiler keeps.

Chen, Xu, Zhang and Guestrin 2016, "Training Deep Nets with Sublinear Memory Cost", section 3, arXiv 1604.06174.
"""

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import PyTree

Step = Callable[[PyTree, PyTree], tuple[PyTree, PyTree]]
"""`step(carry, x) -> (carry, y)`, as for `jax.lax.scan`."""


def square_root_segments(steps: int) -> int:
    """The number of segments with which the fewest carries are held: the root of the number of steps."""
    return max(1, round(math.sqrt(steps)))


def nested_scan(
    step: Step, carry: PyTree, xs: PyTree, steps: int, segments: int | None
) -> tuple[PyTree, PyTree]:
    """`jax.lax.scan(step, carry, xs)` over `steps` steps, which keeps the carries of `segments` starts alone.

    Args:
        step: the body of the scan.
        carry: the first carry.
        xs: what is scanned over, with a leading axis `steps` on every leaf.
        steps: the number of steps.
        segments: the number of segments (None: every carry is kept).
    """
    if segments is None or segments >= steps or steps < 2:
        return _scan(step, carry, xs, steps)
    length = -(-steps // segments)
    whole = steps // length
    first = jax.tree.map(lambda x: x[: whole * length].reshape(whole, length, *x.shape[1:]), xs)
    segment = jax.checkpoint(lambda carry, xs: jax.lax.scan(step, carry, xs), prevent_cse=False)
    carry, ys = jax.lax.scan(segment, carry, first)
    ys = jax.tree.map(lambda y: y.reshape(whole * length, *y.shape[2:]), ys)
    if whole * length == steps:
        return carry, ys
    carry, last = _scan(step, carry, jax.tree.map(lambda x: x[whole * length :], xs), steps - whole * length)
    return carry, jax.tree.map(lambda a, b: jnp.concatenate([a, b]), ys, last)


def _scan(step: Step, carry: PyTree, xs: PyTree, steps: int) -> tuple[PyTree, PyTree]:
    """A scan. A single step is taken without one, which under `vmap` would copy theta for every task."""
    if steps != 1:
        return jax.lax.scan(step, carry, xs)
    carry, y = step(carry, jax.tree.map(lambda x: x[0], xs))
    return carry, jax.tree.map(lambda y: y[None], y)
