r"""Operations of images with a vector over their channels, whose derivatives of every order are one another.

    <channel_sums(x), v> = <x, spread(v)>
    <channel_scale(x, v), y> = <x, channel_scale(y, v)> = <channel_dot(x, y), v>

As primitives they keep, for the backward pass, vectors as vectors: JAX's own product would keep the vector at every
place of every image, and write it at every step of a loop. And a GPU sums in the order in which images lie in memory:
XLA gives the operand of a long sum a layout in which the summed axes are contiguous, and so writes every image once
more, transposed (counted: a third of the memory traffic of a meta-step). Here the operand keeps its layout.
"""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.core import ShapedArray
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir
from jaxtyping import Array, Float

from innerloop.engine.chunking import in_memory_order
from innerloop.nn.kernels.backend import backend
from innerloop.nn.kernels.channels import per_channel

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


def _places(aval: ShapedArray, tasks: int) -> tuple[int, ...]:
    return aval.shape[tasks:-1]


def _primitive(compute: Callable[..., Array]) -> Primitive:
    """A primitive of arrays, `tasks` of whose leading axes are of tasks."""
    made = Primitive(f"channel{compute.__name__}")
    made.def_impl(lambda *arrays, **static: jax.jit(lambda *a: compute(*a, **static))(*arrays))

    def shape_of(*avals: ShapedArray, **static: Any) -> ShapedArray:
        plain = [jax.ShapeDtypeStruct(aval.shape, aval.dtype) for aval in avals]
        return avals[0].update(shape=jax.eval_shape(lambda *a: compute(*a, **static), *plain).shape)

    def batch(arrays: tuple[Array, ...], axes: tuple[int | None, ...], *, tasks: int, **static: Any) -> Any:
        size = next(a.shape[axis] for a, axis in zip(arrays, axes, strict=True) if axis is not None)
        first = [
            jnp.broadcast_to(a, (size, *a.shape)) if axis is None else jnp.moveaxis(a, axis, 0)
            for a, axis in zip(arrays, axes, strict=True)
        ]
        return made.bind(*first, tasks=tasks + 1, **static), 0

    made.def_abstract_eval(shape_of)
    mlir.register_lowering(made, mlir.lower_fun(compute, multiple_results=False))
    batching.primitive_batchers[made] = batch
    return made


sums_p, spread_p, scale_p, dot_p = map(_primitive, (_sums, _spread, _scale, _dot))

ad.deflinear2(
    sums_p,
    lambda ct, x, tasks, **more: [spread_p.bind(ct, tasks=tasks, places=_places(x.aval, tasks), **more)],
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
    return sums_p.bind(x, **_settings()) / math.prod(x.shape[:-1])


def channel_moments(x: Images) -> tuple[Channels, Channels]:
    """Mean and variance over examples and places.

    On a GPU from one pass over memory, around the first example's mean s: var = E[(x - s)^2] - (E[x] - s)^2. Rounding
    grows by at most the number of examples, since (E[x] - s)^2 is below that many variances.
    """
    one_pass = backend() == "gpu"
    around = lax.stop_gradient(channel_mean(x[:1])) if one_pass else channel_mean(x)
    off = x - spread(around, x)
    second = dot_p.bind(off, off, **_settings()) / math.prod(x.shape[:-1])
    if not one_pass:
        return around, second
    first = channel_mean(off)
    return around + first, second - jnp.square(first)


def channel_scale(x: Images, v: Channels) -> Images:
    """The images with every channel multiplied by its number."""
    return x * per_channel(v, x) if backend() == "any" else scale_p.bind(x, v, **_settings())


def spread(v: Channels, like: Images) -> Array:
    """The vector at every place of `like`, for sums with it."""
    if backend() == "any":
        return per_channel(v, like)
    return spread_p.bind(v, places=like.shape[:-1], **_settings())
