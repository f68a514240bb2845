r"""Operations on images and a vector over their channels; their derivatives of every order are again these operations.

    <channel_sums(x), v> = <x, spread(v)>
    <channel_scale(x, v), y> = <x, channel_scale(y, v)> = <channel_dot(x, y), v>

As primitives they store vectors as vectors for the backward pass: JAX's own product would store the vector at every
place of every image, and write it at every step of a loop. They also let a GPU sum images in memory order: XLA gives
the operand of a long sum a layout in which the summed axes are contiguous, and so writes every image once more,
transposed (counted: an eighth to a fifth of the memory traffic of a meta-step). Here the operand keeps its layout.
"""

import math
from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
from jax import lax
from jax.extend.core import Primitive
from jax.interpreters import ad, batching
from jaxtyping import Array, Float

from innerloop.engine.outer.chunking import in_memory_order
from innerloop.nn.kernels.backend import backend
from innerloop.nn.kernels.primitives import batch_first, primitive
from innerloop.parallel.varying import varying_axes, varying_over

Images = Float[Array, "examples *places channels"]
Channels = Float[Array, " channels"]


def _sums(x: Array, *, tasks: int, in_order: bool) -> Array:
    return (in_memory_order(x) if in_order else x).sum(range(tasks, x.ndim - 1))


def _spread(v: Array, *, tasks: int, in_order: bool, places: tuple[int, ...]) -> Array:
    shape = (*v.shape[:-1], *places, v.shape[-1])
    return lax.broadcast_in_dim(v, shape, (*range(tasks), len(shape) - 1))


def _scale(x: Array, v: Array, *, tasks: int, in_order: bool) -> Array:
    return x * _spread(v, tasks=tasks, in_order=in_order, places=x.shape[tasks:-1])


def _dot(x: Array, y: Array, *, tasks: int, in_order: bool) -> Array:
    return _sums(x * y, tasks=tasks, in_order=in_order)


def _primitive(compute: Callable[..., Array], *static: str) -> Primitive:
    """A primitive on arrays whose first `tasks` axes are axes of tasks."""
    made = primitive(f"channel{compute.__name__}", compute, "tasks", "in_order", *static)

    def batch(arrays: tuple[Array, ...], axes: tuple[int | None, ...], *, tasks: int, **more: Any) -> Any:
        return made.bind(*batch_first(arrays, axes), tasks=tasks + 1, **more), 0

    batching.primitive_batchers[made] = batch
    return made


sums_p, scale_p, dot_p = map(_primitive, (_sums, _scale, _dot))
spread_p = _primitive(_spread, "places")

ad.deflinear2(
    sums_p,
    lambda ct, x, tasks, **more: [spread_p.bind(ct, tasks=tasks, places=x.aval.shape[tasks:-1], **more)],
)
ad.deflinear2(spread_p, lambda ct, _, places, **more: [sums_p.bind(ct, **more)])
ad.defbilinear(
    scale_p,
    lambda ct, x, v, **more: scale_p.bind(ct, v, **more),
    lambda ct, x, v, **more: dot_p.bind(ct, x, **more),
)
ad.defbilinear(
    dot_p,
    lambda ct, x, y, **more: scale_p.bind(y, ct, **more),
    lambda ct, x, y, **more: scale_p.bind(x, ct, **more),
)


def _settings() -> dict[str, Any]:
    return {"tasks": 0, "in_order": backend() == "gpu"}


def channel_mean(x: Images) -> Channels:
    """The mean over examples and places."""
    return (sums_p.bind(_wide(x), **_settings()) / math.prod(x.shape[:-1])).astype(_mean_dtype(x))


def channel_moments(x: Images) -> tuple[Channels, Channels]:
    """Mean and variance over examples and places.

    On a GPU, in one pass over memory around the first example's mean s: var = E[(x - s)^2] - (E[x] - s)^2. Rounding
    errors grow at most by a factor of the number of examples, since (E[x] - s)^2 is below that many variances.
    """
    if backend() == "any":
        mean = _mean_by_axis(x)
        return mean, _mean_by_axis(jnp.square(x - per_channel(mean, x)))
    one_pass, wide = backend() == "gpu", _wide(x)
    around = lax.stop_gradient(channel_mean(wide[:1])) if one_pass else channel_mean(wide)
    off = wide - spread(around, wide)
    mean, variance = around, dot_p.bind(off, off, **_settings()) / math.prod(x.shape[:-1])
    if one_pass:
        first = channel_mean(off)
        mean, variance = mean + first, variance - jnp.square(first)
    return mean.astype(_mean_dtype(x)), variance.astype(_mean_dtype(x))


def channel_scale(x: Images, v: Channels) -> Images:
    """The images with every channel multiplied by its element of `v`."""
    if backend() == "any":
        return x * per_channel(v, x)
    dtype = jnp.promote_types(x.dtype, v.dtype)
    factors = x.astype(dtype), v.astype(dtype)
    return scale_p.bind(*varying_over(varying_axes(factors), factors), **_settings())


def spread(v: Channels, like: Images) -> Array:
    """The vector repeated at every place of `like`, to be added to or subtracted from it."""
    if backend() == "any":
        return per_channel(v, like)
    return spread_p.bind(v, places=like.shape[:-1], **_settings())


def per_channel(vector: Channels, like: Float[Array, "*axes channels"]) -> Array:
    """Add leading axes of size 1, for broadcasting without NumPy's rank promotion, which users may forbid."""
    return vector.reshape((1,) * (like.ndim - 1) + vector.shape)


def _mean_by_axis(x: Images) -> Channels:
    """The mean of every channel, one axis at a time: onnxruntime sums sequentially, and long sums lose digits."""
    for axis in range(x.ndim - 2, -1, -1):
        x = x.mean(axis)
    return x


def _mean_dtype(x: Array) -> Any:
    """The dtype of a mean: that of `x` for floats, the default float for integers."""
    return x.dtype if jnp.issubdtype(x.dtype, jnp.inexact) else jnp.zeros(0).dtype


def _wide(x: Array) -> Array:
    """Cast to at least float32, in which long sums neither lose much precision nor overflow."""
    return x.astype(jnp.promote_types(x.dtype, jnp.float32))
