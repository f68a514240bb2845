"""SAME convolution with fast derivatives of every order.

On a CPU or GPU it is one of three bilinear maps (`bilinear_conv`), elsewhere XLA's own operation.

Layouts: inputs `[examples, height, width, channels]`, kernels `[height, width, channels, filters]`.
"""

import jax.numpy as jnp
from jax.extend.core import Primitive

from innerloop.nn.kernels import cpu_conv, gpu_conv
from innerloop.nn.kernels.backend import backend, gpu_convolution
from innerloop.nn.kernels.im2col import Images, Kernel, Outputs, conv_by_patches, conv_by_xla
from innerloop.parallel.precision import product_precision
from innerloop.parallel.varying import varying_axes, varying_over

FEW = 32
"""The largest window, in elements, for which recomputing a convolution is cheaper than storing its output."""


def has_few_inputs(w: Kernel) -> bool:
    """Whether `blockwise_conv` is faster: on a CPU, for images with few channels."""
    return backend() == "cpu" and w.shape[0] * w.shape[1] * w.shape[2] <= FEW


def conv(x: Images, w: Kernel, stride: int = 1) -> Outputs:
    """SAME convolution: the image is padded with zeros so that the output has ceil(size / stride) pixels per side.

    Images and kernels of different dtypes are promoted to their common one, as in `x @ w`.
    """
    dtype = jnp.result_type(x, w)
    x, w = varying_over(varying_axes(x, w), (x.astype(dtype), w.astype(dtype)))
    if not (x.size and w.size):  # the other implementations split the examples into blocks
        return conv_by_xla(x, w, stride)
    if has_few_inputs(w):
        return conv_by_patches(x, w, stride)
    if backend() == "cpu":
        return cpu_conv.conv_p.bind(x, w, stride=stride)
    if backend() == "gpu":
        return _conv_of_gpu().bind(x, w, stride=stride, precision=product_precision())
    return conv_by_xla(x, w, stride)


def _conv_of_gpu() -> Primitive:
    """The chosen primitive; Pallas is imported only if it is used."""
    if gpu_convolution() == "patches":
        return gpu_conv.conv_p
    from innerloop.nn.kernels import pallas_conv

    return pallas_conv.conv_p
