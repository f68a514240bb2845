r"""A convolution whose derivatives of every order are three fast kernels, each the derivative of the other two.

    <conv(x, w), y> = <w, kernel_gradient(x, y)> = <x, input_gradient(y, w)>

All three are bilinear, so every derivative of every one of them is one of the three again: first, second and later
orders, forward and reverse, run the same hand-picked code and never XLA's own derivatives of a convolution, whose
second order is slower on a CPU by a factor of ten and more. They are JAX primitives because no other rule of JAX's
serves forward over reverse over reverse.

Which code: Winograd's for 3x3 windows and stride 1 where the images are large enough for tiles; otherwise XLA's
(Eigen's) convolution forward in float32, which packs patches inside the product, and products with patches that stay in
cache for the kernel's gradient and for strides.
"""

import jax.numpy as jnp
from jax import lax
from jax.extend.core import Primitive
from jax.interpreters import ad, batching
from jaxtyping import Array, Float

from innerloop.nn.kernels import winograd
from innerloop.nn.kernels.im2col import (
    conv_by_patches,
    input_gradient_by_patches,
    kernel_gradient_by_patches,
    same_padding,
)
from innerloop.nn.kernels.primitives import batch_first, primitive


def conv_by_xla(
    x: Float[Array, "examples height width channels"],
    w: Float[Array, "kernel kernel channels filters"],
    stride: int = 1,
) -> Float[Array, "examples out_height out_width filters"]:
    """SAME convolution as XLA's own operation."""
    padding = [same_padding(size, w.shape[0], stride) for size in x.shape[1:3]]
    return lax.conv_general_dilated(
        x, w, (stride, stride), padding, dimension_numbers=("NHWC", "HWIO", "NHWC")
    )


def _fast_conv(x: Array, w: Array, *, stride: int) -> Array:
    """conv(x, w) on a CPU. Eigen has no fast double precision."""
    if winograd.pays(x, w.shape, stride):
        return winograd.conv_by_tiles(x, w)
    return conv_by_xla(x, w, stride) if x.dtype == jnp.float32 else conv_by_patches(x, w, stride)


def _fast_kernel_gradient(x: Array, y: Array, *, stride: int, kernel: int) -> Array:
    """kernel_gradient(x, y) on a CPU."""
    shape = (kernel, kernel, x.shape[-1], y.shape[-1])
    if winograd.pays(x, shape, stride, winograd.LEAST_CHANNELS_OF_A_GRADIENT):
        return winograd.kernel_gradient_by_tiles(x, y)
    return kernel_gradient_by_patches(x, y, stride, kernel)


def _fast_input_gradient(y: Array, w: Array, *, stride: int, places: tuple[int, int]) -> Array:
    """input_gradient(y, w) on a CPU: for stride 1 a convolution with the flipped, transposed kernel."""
    if stride == 1 and w.shape[0] % 2:
        return _fast_conv(y, w[::-1, ::-1].swapaxes(2, 3), stride=1)
    return input_gradient_by_patches(y, w, stride, places)


conv_p = primitive("conv", _fast_conv, "stride")
kernel_gradient_p = primitive("conv_kernel_gradient", _fast_kernel_gradient, "stride", "kernel")
input_gradient_p = primitive("conv_input_gradient", _fast_input_gradient, "stride", "places")


def _input_gradient(y: Array, w: Array, stride: int, places: tuple[int, ...]) -> Array:
    """The x-derivative of <conv(x, w), y>, for images of this height and width."""
    return input_gradient_p.bind(y, w, stride=stride, places=places)


def _kernel_gradient(x: Array, y: Array, stride: int, kernel: int) -> Array:
    """The w-derivative of <conv(x, w), y>, for a kernel of this size."""
    return kernel_gradient_p.bind(x, y, stride=stride, kernel=kernel)


ad.defbilinear(
    conv_p,
    lambda ct, x, w, stride: _input_gradient(ct, w, stride, x.aval.shape[1:3]),
    lambda ct, x, w, stride: _kernel_gradient(x, ct, stride, w.aval.shape[0]),
)
ad.defbilinear(
    kernel_gradient_p,
    lambda ct, x, y, stride, kernel: _input_gradient(y, ct, stride, x.aval.shape[1:3]),
    lambda ct, x, y, stride, kernel: conv_p.bind(x, ct, stride=stride),
)
ad.defbilinear(
    input_gradient_p,
    lambda ct, y, w, stride, places: conv_p.bind(ct, w, stride=stride),
    lambda ct, y, w, stride, places: _kernel_gradient(ct, y, stride, w.aval.shape[0]),
)


def _batched(made: Primitive, shares_kernel: bool) -> None:
    """The rule under `vmap`: more examples if all share one kernel, else one by one (faster than grouped)."""

    def rule(arrays: tuple[Array, Array], axes: tuple[int | None, int | None], **static) -> tuple[Array, int]:
        first, second = arrays
        if shares_kernel and axes[0] is not None and axes[1] is None:
            first = jnp.moveaxis(first, axes[0], 0)
            out = made.bind(first.reshape(-1, *first.shape[2:]), second, **static)
            return out.reshape(*first.shape[:2], *out.shape[1:]), 0
        return lax.map(lambda pair: made.bind(*pair, **static), batch_first(arrays, axes)), 0

    batching.primitive_batchers[made] = rule


_batched(conv_p, shares_kernel=True)
_batched(input_gradient_p, shares_kernel=True)
_batched(kernel_gradient_p, shares_kernel=False)
