r"""A convolution with few input channels, fused with what follows, one block of images at a time.

Such a layer (images of one or three channels) makes 64 numbers from 9: writing its output to memory and reading it
back costs more than recomputing it. So the output never exists as a whole. Its mean and variance, which batch
normalisation needs first, are those of a linear map, so they follow from the windows p of the images:

    E[w^T p] = w^T m,    Var[w^T p] = w^T C w,    m = E[p],  C = E[(p - m)(p - m)^T]
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from innerloop.nn.kernels.im2col import (
    Images,
    Kernel,
    conv_by_patches,
    images_in_a_block,
    map_blocks,
    patches,
)

BLOCK_BYTES = 450_000
"""Bytes of outputs made at a time, so that they stay in a core's cache (measured)."""


def _window_moments(
    x: Images, kernel: int, stride: int
) -> tuple[Float[Array, " window"], Float[Array, "window window"]]:
    """Mean and covariance of all windows of the images, m and C.

    The sums are taken around the images' own mean, which avoids the difference of two large numbers.
    """
    size = images_in_a_block(x, kernel * kernel * x.shape[-1], stride, BLOCK_BYTES)
    around = jnp.tile(x.mean((0, 1, 2)), kernel * kernel)

    def sums(block: Images) -> tuple[Array, Array]:
        rows = patches(block, kernel, stride).reshape(-1, around.size) - around[None]
        return rows.sum(0), rows.T @ rows

    blocks = x.reshape(-1, size, *x.shape[1:])
    first, second = jax.tree.map(lambda s: s.sum(0), jax.lax.map(jax.checkpoint(sums), blocks))
    count = x.shape[0] * -(-x.shape[1] // stride) * -(-x.shape[2] // stride)
    off = first / count
    return around + off, second / count - jnp.outer(off, off)


def output_moments(
    x: Images, w: Kernel, stride: int
) -> tuple[Float[Array, " filters"], Float[Array, " filters"]]:
    """Mean and variance of conv(x, w) over all images and positions, for each filter."""
    mean, covariance = _window_moments(x, w.shape[0], stride)
    flat = w.reshape(-1, w.shape[-1])
    return mean @ flat, (flat * (covariance @ flat)).sum(0)


def conv_then(after: Callable[[Array], Array], x: Images, w: Kernel, stride: int) -> Array:
    """`after(conv(x, w))`, if `after` acts on each image separately; the backward pass recomputes conv(x, w)."""

    def block(images: Images) -> Array:
        return after(conv_by_patches(images, w, stride))

    return map_blocks(jax.checkpoint(block), x, images_in_a_block(x, w.shape[-1], stride, BLOCK_BYTES))
