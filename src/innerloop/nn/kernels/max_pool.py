r"""2x2 max-pooling, fast in every order of derivative.

    max_pool(x) = pick(x, which(x)),    <pick(x, i), y> = <x, put(y, i)>

Once the position of the maximum in each window is known, pooling is linear: `pick` selects one element of each window,
and its transpose `put` puts it back among zeros. Each is the derivative of the other, so derivatives of every order use
only these two, and only one byte per window is stored. JAX's own derivatives of a maximum store floats for every
element and handle ties.

Layouts: images `[examples, height, width, channels]`; an odd last row or column is dropped, as the papers' VALID
pooling does.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend.core import Primitive
from jax.interpreters import ad, batching
from jaxtyping import Array, Bool, Float, Int8

from innerloop.nn.kernels.backend import backend
from innerloop.nn.kernels.im2col import Images
from innerloop.nn.kernels.primitives import batch_first, primitive

Pooled = Float[Array, "examples half_height half_width channels"]
Which = Int8[Array, "examples half_height half_width channels"]


def _corners(x: Images) -> list[Pooled]:
    """The four elements of all windows: above left, above right, below left, below right."""
    height, width = x.shape[1] // 2 * 2, x.shape[2] // 2 * 2
    return [x[:, i:height:2, j:width:2] for i in (0, 1) for j in (0, 1)]


def _which(x: Images) -> Which:
    """The position of each window's maximum, 0 to 3; the first of equals, and NaN counts as largest, as in PyTorch."""
    first, second, third, fourth = _corners(x)
    above, below = _exceeds(second, first), _exceeds(fourth, third)
    lower = _exceeds(jnp.where(below, fourth, third), jnp.where(above, second, first))
    one, two, three = jnp.int8(1), jnp.int8(2), jnp.int8(3)
    return jnp.where(lower, jnp.where(below, three, two), jnp.where(above, one, jnp.int8(0)))


def _exceeds(x: Pooled, y: Pooled) -> Bool[Array, "examples half_height half_width channels"]:
    """Where x is larger than y, or NaN."""
    return (y < x) | (x != x)


def _pick(x: Images, place: Which) -> Pooled:
    """The element of each window at the given position."""
    first, second, third, fourth = _corners(x)
    above, below = jnp.where(place == 0, first, second), jnp.where(place == 2, third, fourth)
    return jnp.where(place < 2, above, below)


def _put(y: Pooled, place: Which, *, places: tuple[int, int]) -> Images:
    """The transpose of `_pick`: each element at its position in its window, zero elsewhere."""
    examples, height, width, channels = y.shape
    corner = jnp.arange(4, dtype=place.dtype).reshape(1, 1, 2, 1, 2, 1)
    here = place[:, :, None, :, None] == corner
    x = jnp.where(here, y[:, :, None, :, None], jnp.zeros((), y.dtype))
    x = x.reshape(examples, 2 * height, 2 * width, channels)
    return jnp.pad(x, ((0, 0), (0, places[0] - 2 * height), (0, places[1] - 2 * width), (0, 0)))


pick_p = primitive("max_pool_pick", _pick)
put_p = primitive("max_pool_put", _put, "places")


def _linear_in_the_first(made: Primitive, transposed: Callable[..., Array]) -> None:
    """Register the rules of a primitive that is linear in its first array and constant in its second, the positions."""
    ad.defjvp(made, lambda tangent, _, place, **static: made.bind(tangent, place, **static), None)

    def transpose(ct: Any, first: Any, place: Array, **_: Any) -> list[Any]:
        return [ad.Zero(first.aval) if type(ct) is ad.Zero else transposed(ct, place, first.aval.shape), None]

    def batch(
        arrays: tuple[Array, Array], axes: tuple[int | None, int | None], **static
    ) -> tuple[Array, int]:
        both = batch_first(arrays, axes)
        size, examples = both[0].shape[:2]
        out = made.bind(*(a.reshape(size * examples, *a.shape[2:]) for a in both), **static)
        return out.reshape(size, examples, *out.shape[1:]), 0

    ad.primitive_transposes[made] = transpose
    batching.primitive_batchers[made] = batch


_linear_in_the_first(pick_p, lambda ct, place, shape: put_p.bind(ct, place, places=shape[1:3]))
_linear_in_the_first(put_p, lambda ct, place, shape: pick_p.bind(ct, place))


def max_pool(x: Images) -> Pooled:
    """The maximum of every 2x2 window."""
    if backend() == "any":
        return functools.reduce(jnp.maximum, _corners(x))
    return pick_p.bind(x, _which(jax.lax.stop_gradient(x)))
