r"""The product of a linear layer, whose derivatives of every order are three products, each a derivative of the others.

    <product(x, w), y> = <w, weight_gradient(x, y)> = <x, input_gradient(y, w)>

They are `x @ w` and its usual derivatives, with one exception: the gradient of the weights if every task has its own
weights. On a CPU, XLA's batched product is slow when it contracts the first axis of both sides, so x is transposed in
memory first (measured for 25 tasks, 10 examples, 40 x 40 weights: 14 instead of 31 microseconds). A meta-step of a
small network consists of little else. They are primitives for the reason given in `bilinear_conv`.

Layouts: x `[..., examples, in]`, w `[..., in, out]`, y `[..., examples, out]`, with the same leading axes.
"""

import jax
import jax.numpy as jnp
from jax.extend.core import Primitive
from jaxtyping import Array, Float, Num

from innerloop.nn.kernels.backend import backend
from innerloop.nn.kernels.bilinear_conv import bilinear_maps
from innerloop.parallel.varying import varying_axes, varying_over


def _weight_gradient(x: Array, y: Array) -> Array:
    """x^T y, the w-derivative of <product(x, w), y>."""
    transposed = jnp.swapaxes(x, -1, -2)
    if x.ndim > 2 and min(x.shape[-1], y.shape[-1]) > 1:
        transposed = jax.lax.optimization_barrier(transposed)  # else XLA folds it into the product
    return transposed @ y


def _input_gradient(y: Array, w: Array) -> Array:
    """y w^T, the x-derivative of <product(x, w), y>."""
    return y @ jnp.swapaxes(w, -1, -2)


product_p = bilinear_maps(
    "linear",
    jnp.matmul,
    _weight_gradient,
    _input_gradient,
    Primitive.bind,
    of_kernel={},
    of_inputs={},
    kernel_rank=2,
)


def linear(
    x: Num[Array, "examples features_in"], w: Float[Array, "features_in features_out"]
) -> Float[Array, "examples features_out"]:
    """x w; XLA's own product except on a CPU."""
    if backend() != "cpu" or x.dtype != w.dtype:
        return x @ w
    return product_p.bind(*varying_over(varying_axes(x, w), (x, w)))
