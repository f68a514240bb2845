r"""A scan that keeps few of its carries: checkpoints through time.

Reverse mode through a scan of k steps keeps k carries. Here only the carry at the start of each of n segments is kept.
The backward pass reruns one segment at a time and keeps its ceil(k / n) carries, so n + ceil(k / n) are held at once,
about 2 sqrt(k) for n = sqrt(k), at the cost of running the steps once more. The result is the same to the last bit of
what the compiler keeps. On accelerators with their own memory, the kept carries can be stored in host memory.

Chen, Xu, Zhang and Guestrin 2016, "Training Deep Nets with Sublinear Memory Cost", section 3, arXiv 1604.06174.
"""

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name
from jaxtyping import Array, PyTree

OFFLOADED = "innerloop_carry"
"""The name of the carries that are kept in host memory."""

Step = Callable[[PyTree, PyTree], tuple[PyTree, PyTree]]
"""`step(carry, x) -> (carry, y)`, as for `jax.lax.scan`."""


def square_root_segments(steps: int) -> int:
    """The number of segments that minimises the carries held: the square root of the number of steps."""
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
    """`jax.lax.scan(step, carry, xs)` over `steps` steps that keeps only the carry at the start of each segment.

    Args:
        step: the body of the scan.
        carry: the first carry.
        xs: the inputs to scan over, with a leading axis `steps` on every leaf.
        steps: the number of steps.
        segments: the number of segments (None: every carry is kept).
        offload: whether the kept carries stay in host memory until the backward pass reads them.
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
    """Several steps; only their first carry is kept for the backward pass."""
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
    """Name an array for offloading; scalars, such as a step count, stay on the device."""
    arrays = jnp.ndim(x) > 0 and jnp.issubdtype(jnp.result_type(x), jnp.inexact)
    return checkpoint_name(x, OFFLOADED) if arrays else x


def _scan(step: Step, carry: PyTree, xs: PyTree, steps: int, unroll: int) -> tuple[PyTree, PyTree]:
    """A scan; a single step runs without one, because under `vmap` a scan would copy theta for every task."""
    if steps != 1:
        return jax.lax.scan(step, carry, xs, unroll=max(1, min(unroll, steps)))
    carry, y = step(carry, jax.tree.map(lambda x: x[0], xs))
    return carry, jax.tree.map(lambda y: y[None], y)
