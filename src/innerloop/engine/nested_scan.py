r"""A scan that keeps few of its carries: checkpoints through time.

Reverse mode through a scan of k steps keeps k carries. Here only the carry at the start of each of n segments is kept;
the backward pass runs one segment again and keeps the ceil(k / n) carries of that one, so that n + ceil(k / n) are held
at a time, about 2 sqrt(k) for n = sqrt(k), for one more run of the steps. The result is the same to the last bit of
what the compiler keeps. What is kept may lie in the host's memory, where an accelerator has another.

Chen, Xu, Zhang and Guestrin 2016, "Training Deep Nets with Sublinear Memory Cost", section 3, arXiv 1604.06174.
"""

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name
from jaxtyping import Array, PyTree

OFFLOADED = "innerloop_carry"
"""The name of carries that the host's memory keeps."""

Step = Callable[[PyTree, PyTree], tuple[PyTree, PyTree]]
"""`step(carry, x) -> (carry, y)`, as for `jax.lax.scan`."""


def square_root_segments(steps: int) -> int:
    """The number of segments with which the fewest carries are held: the root of the number of steps."""
    return max(1, round(math.sqrt(steps)))


def nested_scan(
    step: Step,
    carry: PyTree,
    xs: PyTree,
    steps: int,
    segments: int | None,
    *,
    offload: bool = False,
    unroll: int = 1,
) -> tuple[PyTree, PyTree]:
    """`jax.lax.scan(step, carry, xs)` over `steps` steps, which keeps the carries of `segments` starts alone.

    Args:
        step: the body of the scan.
        carry: the first carry.
        xs: what is scanned over, with a leading axis `steps` on every leaf.
        steps: the number of steps.
        segments: the number of segments (None: every carry is kept).
        offload: whether the carries that are kept lie in the host's memory until the backward pass reads them.
        unroll: steps in one iteration of the compiled loop, as for `jax.lax.scan`.
    """
    if segments is None or segments >= steps or steps < 2:
        return _scan(step, carry, xs, steps, unroll)
    length = -(-steps // segments)
    whole = steps // length
    first = jax.tree.map(lambda x: x[: whole * length].reshape(whole, length, *x.shape[1:]), xs)
    segment = _segment(step, offload, min(unroll, length))
    carry, ys = jax.lax.scan(segment, carry, first)
    ys = jax.tree.map(lambda y: y.reshape(whole * length, *y.shape[2:]), ys)
    if whole * length == steps:
        return carry, ys
    rest = jax.tree.map(lambda x: x[whole * length :], xs)
    carry, last = _scan(step, carry, rest, steps - whole * length, unroll)
    return carry, jax.tree.map(lambda a, b: jnp.concatenate([a, b]), ys, last)


def _segment(step: Step, offload: bool, unroll: int) -> Step:
    """Several steps, of which the backward pass is given the first carry alone."""
    scan = lambda carry, xs: jax.lax.scan(step, carry, xs, unroll=unroll)
    if not offload:
        return jax.checkpoint(scan, prevent_cse=False)
    policy = jax.checkpoint_policies.save_and_offload_only_these_names(
        names_which_can_be_saved=[],
        names_which_can_be_offloaded=[OFFLOADED],
        offload_src="device",
        offload_dst="pinned_host",
    )
    named = lambda carry, xs: scan(jax.tree.map(_named, carry), xs)
    return jax.checkpoint(named, prevent_cse=False, policy=policy)


def _named(x: Array) -> Array:
    """An array by the name under which it is offloaded; numbers such as a count of steps stay."""
    arrays = jnp.ndim(x) > 0 and jnp.issubdtype(jnp.result_type(x), jnp.inexact)
    return checkpoint_name(x, OFFLOADED) if arrays else x


def _scan(step: Step, carry: PyTree, xs: PyTree, steps: int, unroll: int) -> tuple[PyTree, PyTree]:
    """A scan. A single step is taken without one, which under `vmap` would copy theta for every task."""
    if steps != 1:
        return jax.lax.scan(step, carry, xs, unroll=max(1, min(unroll, steps)))
    carry, y = step(carry, jax.tree.map(lambda x: x[0], xs))
    return carry, jax.tree.map(lambda y: y[None], y)
