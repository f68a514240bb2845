r"""Sums over all places of a channel, and their transpose, for a GPU: in the order in which images lie in memory.

    <channel_sums(x), v> = <x, spread(v)>

XLA gives the operand of a long sum a layout in which the summed axes are contiguous, and so writes every image once
more, transposed, before each sum (measured: a third of the memory traffic of a meta-step). Here the operand keeps its
layout. Each is the derivative of the other, so that the sums of every order of derivative are these.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental.layout import Layout, with_layout_constraint
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir
from jaxtyping import Array, Float

from innerloop.nn.kernels.backend import backend
from innerloop.nn.kernels.channels import per_channel


def _sums(x: Array, *, tasks: int) -> Array:
    in_order = with_layout_constraint(x, Layout(major_to_minor=tuple(range(x.ndim))))
    return in_order.sum(range(tasks, x.ndim - 1))


def _spread(v: Array, *, tasks: int, places: tuple[int, ...]) -> Array:
    shape = (*v.shape[:-1], *places, v.shape[-1])
    return lax.broadcast_in_dim(v, shape, (*range(tasks), len(shape) - 1))


def _linear(name: str, compute: Callable[..., Array]) -> Primitive:
    """A primitive of one array; `tasks` of its leading axes are of tasks."""
    made = Primitive(name)
    made.def_impl(lambda x, **static: jax.jit(lambda x: compute(x, **static))(x))
    made.def_abstract_eval(
        lambda x, **static: x.update(
            shape=jax.eval_shape(lambda x: compute(x, **static), jax.ShapeDtypeStruct(x.shape, x.dtype)).shape
        )
    )
    mlir.register_lowering(made, mlir.lower_fun(compute, multiple_results=False))

    def batch(arrays: tuple[Array], axes: tuple[int], *, tasks: int, **static: Any) -> tuple[Array, int]:
        return made.bind(jnp.moveaxis(arrays[0], axes[0], 0), tasks=tasks + 1, **static), 0

    batching.primitive_batchers[made] = batch
    return made


sums_p, spread_p = _linear("channel_sums", _sums), _linear("channel_spread", _spread)
ad.deflinear2(sums_p, lambda ct, x, tasks: [spread_p.bind(ct, tasks=tasks, places=x.aval.shape[tasks:-1])])
ad.deflinear2(spread_p, lambda ct, _, tasks, places: [sums_p.bind(ct, tasks=tasks)])


def channel_mean(x: Float[Array, "*places channels"]) -> Float[Array, " channels"]:
    """The mean over all places."""
    if backend() != "gpu":
        return x.reshape(-1, x.shape[-1]).mean(0)
    return sums_p.bind(x, tasks=0) / (x.size // x.shape[-1])


def channel_moments(
    x: Float[Array, "examples *places channels"],
) -> tuple[Float[Array, " channels"], Float[Array, " channels"]]:
    """Mean and variance over examples and places.

    On a GPU from one pass over memory, around the first example's mean s: var = E[(x - s)^2] - (E[x] - s)^2. Rounding
    grows by at most the number of examples, since (E[x] - s)^2 is below that many variances.
    """
    if backend() != "gpu":
        mean = channel_mean(x)
        return mean, channel_mean(jnp.square(x - spread(mean, x)))
    around = lax.stop_gradient(channel_mean(x[:1]))
    off = x - spread(around, x)
    first, second = channel_mean(off), channel_mean(jnp.square(off))
    return around + first, second - jnp.square(first)


def spread(v: Float[Array, " channels"], like: Float[Array, "*places channels"]) -> Array:
    """The vector at every place of `like`, for operations with it."""
    if backend() != "gpu":
        return per_channel(v, like)
    return spread_p.bind(v, tasks=0, places=like.shape[:-1])
