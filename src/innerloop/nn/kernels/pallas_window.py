"""Windows of images in one flat array, as Pallas programs read them: padding is a mask, not memory."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton
from jaxtyping import Array, Bool, Int

from innerloop.nn.kernels.im2col import same_padding
from innerloop.nn.kernels.pallas_tiles import FLAT

Tile = tuple[Int[Array, " tile"], Bool[Array, " tile"]]
"""Some indices along an axis, and which of them exist."""


def interpreted() -> bool:
    """Whether there is no GPU to compile for."""
    return jax.default_backend() != "gpu"


def width(size: int, maximum: int) -> int:
    """The length of a tile along an axis: a power of two, and at least the minimum for a product."""
    return min(max(16, 1 << (size - 1).bit_length()), maximum)


def tile(number: Array, size: int, maximum: int) -> Tile:
    """The tile with this number. If all its indices exist, the mask is a constant; the compiler would not find that."""
    length = width(size, maximum)
    index = number * length + jnp.arange(length, dtype=jnp.int32)
    return index, index < size if size % length else jnp.ones(length, bool)


def divided(number: Array, by: int | Array) -> tuple[Array, Array]:
    """Quotient and remainder, rounded towards zero, which is less work than towards minus infinity."""
    return lax.div(number, jnp.int32(by)), lax.rem(number, jnp.int32(by))


def read(ref: Any, index: Int[Array, "..."], mask: Array) -> Array:
    """Numbers at flat indices, 0 where the mask is off. The interpreter reads there, too: the first number."""
    at = jnp.where(mask, index, 0) if interpreted() else index
    return triton.load(ref.at[at], mask=mask, other=0)


def write(ref: Any, index: Int[Array, "..."], mask: Array, values: Array) -> None:
    """Write numbers to flat indices. The interpreter also writes where the mask is off: to a spare last element."""
    at = jnp.where(mask, index, ref.shape[0] - 1) if interpreted() else index
    triton.store(ref.at[at], values, mask=mask)


class Places(NamedTuple):
    """Places of the result that a program computes, and the positions of the window that they read.

    Attributes:
        image, row, column: of each place, `[places]`; images are counted over all tasks.
        there: which of them exist.
        first, counts: along each axis, the first offset that they read, and how many they read, `step` apart.
    """

    image: Array
    row: Array
    column: Array
    there: Array
    first: tuple[Any, Any]
    counts: tuple[Any, Any]


class Window:
    """Windows of images `[images, height, width, channels]`.

    Forward, place i of the result reads i * stride + offset - padding. Backward, it reads the place that would have
    read i in the forward direction, if there is one. Backward with a stride, places are grouped by the offsets that
    their windows meet, so that only those are multiplied.
    """

    def __init__(
        self, kernel: int, stride: int, images: tuple[int, int], channels: int, backward: bool, maximum: int
    ):
        """Describe the windows; `maximum` is the maximum number of channels of one product."""
        self.kernel, self.stride, self.channels, self.backward = kernel, stride, channels, backward
        self.padding = [same_padding(size, kernel, stride)[0] for size in images]
        small = [-(-size // stride) for size in images]
        self.source, self.result = (small, list(images)) if backward else (list(images), small)
        self.size = kernel**2 * channels
        self.flat = self.size <= FLAT
        self.maximum, self.parts = maximum, pl.cdiv(channels, width(channels, maximum))
        self.step = stride if backward and not self.flat else 1
        self.grid = [-(-size // self.step) for size in self.result]

    @property
    def products(self) -> int:
        """The number of products per window, for all offsets together."""
        return 1 if self.flat else self.kernel**2 * self.parts

    def places(self, group: Array, block: Array, rows: int, first_image: Array, images: int) -> Places:
        """A block of places of one group."""
        m = block * rows + jnp.arange(rows, dtype=jnp.int32)
        line, column = divided(m, self.grid[1])
        image, row = divided(line, self.grid[0])
        there = m < images * self.grid[0] * self.grid[1]
        if self.step == 1:
            zero, size = jnp.int32(0), self.kernel
            return Places(first_image + image, row, column, there, (zero, zero), (size, size))
        start = divided(group, self.step)
        row, column = row * self.step + start[0], column * self.step + start[1]
        there = there & (row < self.result[0]) & (column < self.result[1])
        (a, rows_read), (b, columns_read) = self._offsets(0, start[0]), self._offsets(1, start[1])
        return Places(first_image + image, row, column, there, (a, b), (rows_read, columns_read))

    def _offsets(self, axis: int, start: Array) -> tuple[Array, Array]:
        """Along one axis, the first offset that a group of places reads, and how many it reads."""
        first = divided(start + self.padding[axis], self.step)[1]
        return first, divided(self.kernel - first + self.step - 1, self.step)[0]

    def elements(self, places: Places, number: Array) -> tuple[Array, Array, Tile]:
        """The offsets, and the channels with their mask, of the elements that a product multiplies."""
        if self.flat:
            k, fits = tile(number, self.size, FLAT)
            position, c = divided(k, self.channels)
            return *divided(position, self.kernel), (c, fits)
        position, part = divided(number, self.parts)
        a, b = divided(position, places.counts[1])
        a, b = (start + i * self.step for start, i in zip(places.first, (a, b), strict=True))
        return a, b, tile(part, self.channels, self.maximum)

    def along(self, axis: int, place: Array, offset: Array) -> tuple[Array, Array]:
        """The place that is read along one axis, and whether it exists."""
        if self.backward:
            at, rest = divided(place + (self.padding[axis] - offset), self.stride)
            fits = rest == 0
        else:
            at, fits = place * self.stride + (offset - self.padding[axis]), True
        return at, fits & (at >= 0) & (at < self.source[axis])

    def read(self, ref: Any, places: Places, a: Array, b: Array, channels: Tile) -> Array:
        """Read these elements of the windows at the places, `[places, elements]`."""
        c, fits = channels
        row, fits_row = self.along(0, places.row[:, None], a)
        column, fits_column = self.along(1, places.column[:, None], b)
        start = ((places.image[:, None] * self.source[0] + row) * self.source[1] + column) * self.channels
        return read(ref, start + c, fits_row & fits_column & places.there[:, None] & fits)
