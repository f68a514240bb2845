r"""The three bilinear maps of a SAME convolution as matrix products with its patches.

    conv(x, w)            = P(x) w          P(x): every window of x as one row, (row offset, column offset, channel)
    kernel_gradient(x, y) = P(x)^T y        the derivative of <conv(x, w), y> in w
    input_gradient(y, w)  = P^T(y w^T)      the derivative of <conv(x, w), y> in x

Layouts: images `[examples, height, width, channels]`, kernels `[height, width, channels, filters]`.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from innerloop.engine.outer.chunking import divisor_up_to
from innerloop.parallel.varying import varying_axes, varying_over

Images = Float[Array, "examples height width channels"]
Outputs = Float[Array, "examples out_height out_width filters"]
Kernel = Float[Array, "kernel kernel channels filters"]

BLOCK_BYTES = 400_000
"""Bytes of patches made at a time, so that they stay in a core's cache (measured: 1.3 to 4 times faster)."""


def same_padding(size: int, kernel: int, stride: int) -> tuple[int, int]:
    """The padding before and after one axis that gives ceil(size / stride) outputs."""
    total = max((-(-size // stride) - 1) * stride + kernel - size, 0)
    return total // 2, total - total // 2


def patches(
    x: Images, kernel: int = 3, stride: int = 1
) -> Float[Array, "examples out_height out_width patch"]:
    """Every window of a SAME convolution as one row: patch = (row offset, column offset, channel)."""
    examples, height, width, channels = x.shape
    out_height, out_width = -(-height // stride), -(-width // stride)
    x = jnp.pad(
        x, ((0, 0), same_padding(height, kernel, stride), same_padding(width, kernel, stride), (0, 0))
    )
    shifts = [
        lax.slice(
            x,
            (0, a, b, 0),
            (examples, a + (out_height - 1) * stride + 1, b + (out_width - 1) * stride + 1, channels),
            (1, stride, stride, 1),
        )
        for a in range(kernel)
        for b in range(kernel)
    ]
    return jnp.concatenate(shifts, axis=-1)


def conv_by_patches(x: Images, w: Kernel, stride: int = 1) -> Outputs:
    """SAME convolution as one matrix product."""
    rows = patches(x, w.shape[0], stride)
    flat = rows.reshape(-1, rows.shape[-1]) @ w.reshape(-1, w.shape[-1])
    return flat.reshape(*rows.shape[:-1], w.shape[-1])


def conv_by_xla(x: Images, w: Kernel, stride: int = 1) -> Outputs:
    """SAME convolution as XLA's own operation."""
    padding = [same_padding(size, w.shape[0], stride) for size in x.shape[1:3]]
    return lax.conv_general_dilated(
        x, w, (stride, stride), padding, dimension_numbers=("NHWC", "HWIO", "NHWC")
    )


def images_in_a_block(x: Images, numbers: int, stride: int, max_bytes: int) -> int:
    """The most images, a divisor of `examples`, that make at most `max_bytes` (at least one).

    Args:
        x: the images.
        numbers: how many numbers are made at each place.
        stride: the distance of two places, in pixels.
        max_bytes: the size of a block.
    """
    examples, height, width, _ = x.shape
    places = -(-height // stride) * -(-width // stride)
    return divisor_up_to(examples, max_bytes // (places * numbers * x.dtype.itemsize))


def map_blocks(fn: Callable[[Array], Array], x: Float[Array, "examples *shape"], size: int) -> Array:
    """`fn(x)` for a function that acts on each example separately, `size` examples at a time."""
    out = lax.map(fn, x.reshape(-1, size, *x.shape[1:]))
    return out.reshape(x.shape[0], *out.shape[2:])


def kernel_gradient_by_patches(x: Images, y: Outputs, stride: int, kernel: int) -> Kernel:
    """P(x)^T y, summed over blocks of images."""
    channels, filters = x.shape[-1], y.shape[-1]
    size = images_in_a_block(x, kernel * kernel * channels, stride, BLOCK_BYTES)
    blocks = jax.tree.map(lambda a: a.reshape(-1, size, *a.shape[1:]), (x, y))

    # The product whose left side has fewer rows is up to three times as fast on a CPU.
    transposed = filters < kernel * kernel * channels

    def add(total: Array, block: tuple[Array, Array]) -> tuple[Array, None]:
        rows = patches(block[0], kernel, stride).reshape(-1, kernel * kernel * channels)
        flat = block[1].reshape(-1, filters)
        return total + (flat.T @ rows if transposed else rows.T @ flat), None

    shape = (filters, kernel * kernel * channels)
    zeros = jnp.zeros(shape if transposed else shape[::-1], x.dtype)
    total, _ = lax.scan(add, varying_over(varying_axes(x, y), zeros), blocks)
    return (total.T if transposed else total).reshape(kernel, kernel, channels, filters)


def input_gradient_by_patches(y: Outputs, w: Kernel, stride: int, places: tuple[int, int]) -> Images:
    """P^T(y w^T): every window is added at its position. `places` is the height and width of the images."""
    filters, kernel = w.shape[-1], w.shape[0]
    rows = (y.reshape(-1, filters) @ w.reshape(-1, filters).T).reshape(*y.shape[:-1], -1)
    images = jax.ShapeDtypeStruct((y.shape[0], *places, w.shape[2]), y.dtype)
    (x,) = jax.linear_transpose(lambda x: patches(x, kernel, stride), images)(rows)
    return x
