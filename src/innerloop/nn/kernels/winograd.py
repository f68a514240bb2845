r"""Winograd's convolution F(2x2, 3x3): 16 products for four outputs of a 3x3 window; the direct method takes 36.

    conv(x, w)            = A^T [(G w G^T) * (B^T d B)] A             d: the 4x4 tiles of x, two places apart
    kernel_gradient(x, y) = G^T [sum_d (B^T d B) * (A y_d A^T)] G     y_d: the 2x2 outputs of tile d

`*` multiplies elementwise over the 16 places of a tile, and sums over channels (or, in the second line, tiles): 16
matrix products. The second line is the transpose of the first in w. Both are exact up to rounding: in float32 they are
within a millionth of the largest element of the direct result (measured on the papers' shapes).

Lavin and Gray 2016, "Fast Algorithms for Convolutional Neural Networks", section 4.1, arXiv 1509.09308.
Layouts: images `[examples, height, width, channels]`, kernels `[3, 3, channels, filters]`; stride 1, SAME.
"""

from collections.abc import Sequence
from functools import reduce
from operator import add

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from innerloop.nn.kernels.im2col import Images, images_in_a_block, map_blocks
from innerloop.parallel.varying import varying_axes, varying_over

B_T = ((1.0, 0.0, -1.0, 0.0), (0.0, 1.0, 1.0, 0.0), (0.0, -1.0, 1.0, 0.0), (0.0, 1.0, 0.0, -1.0))
G = ((1.0, 0.0, 0.0), (0.5, 0.5, 0.5), (0.5, -0.5, 0.5), (0.0, 0.0, 1.0))
A_T = ((1.0, 1.0, 1.0, 0.0), (0.0, 1.0, -1.0, -1.0))
A, G_T = tuple(zip(*A_T, strict=True)), tuple(zip(*G, strict=True))
PLACES = 16
"""Elements of a 4x4 tile."""

BLOCK_BYTES = 1_500_000
"""Bytes of tiles made at a time, so that they stay in a core's cache (measured)."""

MIN_SIDE = 6
"""Smaller images would be mostly padding when cut into tiles (measured)."""
MIN_CHANNELS, MIN_CHANNELS_OF_A_GRADIENT = 32, 64
"""With fewer channels, tiles are not faster: in the forward pass, and for the gradient of the kernel (measured)."""

Matrix = tuple[tuple[float, ...], ...]
Part = Float[Array, "..."]
Square = Sequence[Sequence[Part]]


def _times(matrix: Matrix, parts: Sequence[Part]) -> list[Part]:
    """The matrix times a column of arrays, skipping zeros."""
    return [reduce(add, (c * part for c, part in zip(row, parts, strict=True) if c)) for row in matrix]


def _both_sides(matrix: Matrix, parts: Square) -> Square:
    """matrix parts matrix^T, for a square of arrays."""
    columns = zip(*(_times(matrix, row) for row in parts), strict=True)
    return [list(row) for row in zip(*(_times(matrix, column) for column in columns), strict=True)]


def _halves_up(x: Images) -> tuple[int, int]:
    """The number of tiles down and across: half the height and the width, rounded up."""
    return -(-x.shape[1] // 2), -(-x.shape[2] // 2)


def _padded(x: Images, before: int, height: int, width: int) -> Part:
    """Pad the images with zeros, `before` above and to the left, up to this height and width."""
    after = (height - before - x.shape[1], width - before - x.shape[2])
    return jnp.pad(x, ((0, 0), (before, after[0]), (before, after[1]), (0, 0)))


def _every_second(x: Part, size: int, down: int, across: int) -> Square:
    """Element (i, j) of all tiles of this size, whose corners lie two pixels apart, as a square of arrays."""
    return [
        [x[:, i : i + 2 * down - 1 : 2, j : j + 2 * across - 1 : 2] for j in range(size)] for i in range(size)
    ]


def _stacked(parts: Square) -> Float[Array, "places rows columns"]:
    """A square of arrays as one matrix for each element of a tile."""
    flat = jnp.stack([part for row in parts for part in row])
    return flat.reshape(len(flat), -1, flat.shape[-1])


def _input_tiles(x: Images) -> Float[Array, "16 tiles channels"]:
    """B^T d B."""
    down, across = _halves_up(x)
    return _stacked(
        _both_sides(B_T, _every_second(_padded(x, 1, 2 * down + 2, 2 * across + 2), 4, down, across))
    )


def _output_tiles(y: Images) -> Float[Array, "16 tiles channels"]:
    """A y_d A^T."""
    down, across = _halves_up(y)
    return _stacked(_both_sides(A, _every_second(_padded(y, 0, 2 * down, 2 * across), 2, down, across)))


def _square(parts: Float[Array, "places *rest"], size: int) -> Square:
    """The leading axis as a square of arrays."""
    return [[parts[size * i + j] for j in range(size)] for i in range(size)]


def _block_size(x: Images, filters: int) -> int:
    """The most images, a divisor of `examples`, whose tiles take at most `BLOCK_BYTES` (at least one)."""
    return images_in_a_block(x, PLACES * (x.shape[-1] + filters), 2, BLOCK_BYTES)


def is_faster(x: Images, w_shape: tuple[int, ...], stride: int, min_channels: int = MIN_CHANNELS) -> bool:
    """Whether a convolution of these shapes is faster with tiles (measured in float32)."""
    large_enough = min(x.shape[1:3]) >= MIN_SIDE and min(w_shape[2:]) >= min_channels
    return stride == 1 and w_shape[:2] == (3, 3) and large_enough and x.dtype == jnp.float32


def conv_by_tiles(
    x: Images, w: Float[Array, "3 3 channels filters"]
) -> Float[Array, "examples height width filters"]:
    """SAME convolution with stride 1."""
    channels, filters = w.shape[2:]
    kernels = _stacked(_both_sides(G, _square(w.reshape(9, channels, filters), 3)))

    def block(images: Images) -> Array:
        down, across = _halves_up(images)
        products = jnp.einsum("ptc,pcf->ptf", _input_tiles(images), kernels)
        each = _square(products.reshape(PLACES, -1, down, across, filters), 4)
        rows = [jnp.stack(row, axis=3) for row in _both_sides(A_T, each)]
        whole = jnp.stack(rows, axis=2).reshape(-1, 2 * down, 2 * across, filters)
        return whole[:, : images.shape[1], : images.shape[2]]

    return map_blocks(block, x, _block_size(x, filters))


def kernel_gradient_by_tiles(
    x: Images, y: Float[Array, "examples height width filters"]
) -> Float[Array, "3 3 channels filters"]:
    """The w-derivative of <conv(x, w), y>."""
    channels, filters = x.shape[-1], y.shape[-1]
    size = _block_size(x, filters)
    split = lambda images: images.reshape(-1, size, *images.shape[1:])

    def add_block(total: Array, block: tuple[Array, Array]) -> tuple[Array, None]:
        return total + jnp.einsum("ptc,ptf->pcf", _input_tiles(block[0]), _output_tiles(block[1])), None

    total = jnp.zeros((PLACES, channels, filters), x.dtype)
    total, _ = lax.scan(add_block, varying_over(varying_axes(x, y), total), (split(x), split(y)))
    return _stacked(_both_sides(G_T, _square(total, 4))).reshape(3, 3, channels, filters)
