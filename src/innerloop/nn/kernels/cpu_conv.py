"""The three maps of a convolution on a CPU.

Winograd's method for 3x3 windows and stride 1 if the images are large enough for tiles. Otherwise XLA's (Eigen's)
convolution for the forward pass in float32, which packs patches inside the product, and products with patches that stay
in cache for the gradient of the kernel and for strides.
"""

import jax.numpy as jnp
from jax import lax
from jax.extend.core import Primitive
from jaxtyping import Array

from innerloop.nn.kernels import winograd
from innerloop.nn.kernels.bilinear_conv import bilinear_maps
from innerloop.nn.kernels.im2col import (
    conv_by_patches,
    conv_by_xla,
    input_gradient_by_patches,
    kernel_gradient_by_patches,
)


def _fast_conv(x: Array, w: Array, *, stride: int) -> Array:
    """conv(x, w). Eigen has no fast double precision."""
    if winograd.is_faster(x, w.shape, stride):
        return winograd.conv_by_tiles(x, w)
    return conv_by_xla(x, w, stride) if x.dtype == jnp.float32 else conv_by_patches(x, w, stride)


def _fast_kernel_gradient(x: Array, y: Array, *, stride: int, kernel: int) -> Array:
    """kernel_gradient(x, y)."""
    shape = (kernel, kernel, x.shape[-1], y.shape[-1])
    if winograd.is_faster(x, shape, stride, winograd.MIN_CHANNELS_OF_A_GRADIENT):
        return winograd.kernel_gradient_by_tiles(x, y)
    return kernel_gradient_by_patches(x, y, stride, kernel)


def _fast_input_gradient(y: Array, w: Array, *, stride: int, places: tuple[int, int]) -> Array:
    """input_gradient(y, w): for stride 1, a convolution with the flipped, transposed kernel."""
    if stride == 1 and w.shape[0] % 2:
        return _fast_conv(y, w[::-1, ::-1].swapaxes(2, 3), stride=1)
    return input_gradient_by_patches(y, w, stride, places)


def _one_by_one(made: Primitive, *arrays: Array, **static: object) -> Array:
    """A map for tasks that each have their own kernel; a grouped convolution would be slower."""
    return lax.map(lambda pair: made.bind(*pair, **static), arrays)


conv_p = bilinear_maps("conv", _fast_conv, _fast_kernel_gradient, _fast_input_gradient, _one_by_one, "stride")
