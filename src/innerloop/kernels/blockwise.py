r"""A convolution of few inputs, from the windows of the images to what the next layer reads, some images at a time.

Such a layer (images of one or three channels) makes 64 numbers from 9: writing its output to memory and reading it
back costs more than computing it again. So the output never exists as a whole. Its mean and variance, which batch
normalisation needs first, are those of a linear map, known from the windows p of the images alone:

    E[w^T p] = w^T m,    Var[w^T p] = w^T C w,    m = E[p],  C = E[(p - m)(p - m)^T]

The windows do exist as a whole: they, m and C depend on the images alone, so they are made once for all inner steps
(`innerloop.hoist`) and for the backward pass.
"""

from collections.abc import Callable

import jax
from jaxtyping import Array, Float

from innerloop.blocks import divisor_up_to

BLOCK_BYTES = 450_000
"""Outputs of so many images are made at a time: they stay in a core's cache (measured)."""

Windows = Float[Array, "examples height width window"]
"""`kernels.patches.patches` of the images: a row for each place of the output."""
Kernel = Float[Array, "kernel kernel channels filters"]


def images_in_a_block(windows: Windows, numbers: int) -> int:
    """The most images, a divisor of `examples`, which take at most `BLOCK_BYTES` with so many numbers at each place."""
    examples, height, width, _ = windows.shape
    return divisor_up_to(examples, BLOCK_BYTES // (height * width * numbers * windows.dtype.itemsize))


def in_blocks(windows: Windows, numbers: int) -> Float[Array, "blocks images height width window"]:
    """Cut along the examples."""
    return windows.reshape(-1, images_in_a_block(windows, numbers), *windows.shape[1:])


def window_moments(windows: Windows) -> tuple[Float[Array, " window"], Float[Array, "window window"]]:
    """Mean and covariance of all windows, m and C.

    Summed around the mean, so that the difference of two large numbers never arises.
    """
    mean = windows.mean((0, 1, 2))

    def squares(block: Float[Array, "images height width window"]) -> Array:
        rows = (block - mean).reshape(-1, mean.size)
        return rows.T @ rows

    total = jax.lax.map(jax.checkpoint(squares), in_blocks(windows, mean.size)).sum(0)
    return mean, total / (windows.size // mean.size)


def output_moments(windows: Windows, w: Kernel) -> tuple[Float[Array, " filters"], Float[Array, " filters"]]:
    """Mean and variance of the convolution over all images and places, for each filter."""
    mean, covariance = window_moments(windows)
    flat = w.reshape(-1, w.shape[-1])
    return mean @ flat, (flat * (covariance @ flat)).sum(0)


def conv_then(after: Callable[[Array], Array], windows: Windows, w: Kernel) -> Array:
    """`after(convolution)` for an `after` that treats each image by itself; backward, the convolution is made again."""
    flat = w.reshape(-1, w.shape[-1])

    def block(part: Float[Array, "images height width window"]) -> Array:
        return after((part.reshape(-1, len(flat)) @ flat).reshape(*part.shape[:-1], -1))

    out = jax.lax.map(jax.checkpoint(block), in_blocks(windows, w.shape[-1]))
    return out.reshape(len(windows), *out.shape[2:])
