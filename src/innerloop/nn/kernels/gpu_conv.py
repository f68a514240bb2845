r"""The three maps of a convolution on a GPU: batched matrix products with patches, one for all tasks.

To XLA, a convolution of tasks that each have their own kernel is a grouped convolution, which libraries compute slowly
and whose derivatives they compute more slowly still. Here every map has an optional leading axis of tasks, so that
under `vmap`, for derivatives of every order, tasks are the batch axis of a product. Patches are made for one block of
examples at a time, which bounds their memory.
"""

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import lax
from jax.core import ShapedArray
from jax.extend.core import Primitive
from jaxtyping import Array

from innerloop.engine.outer.chunking import divisor_up_to
from innerloop.nn.kernels.bilinear_conv import bilinear_maps
from innerloop.nn.kernels.im2col import conv_by_patches, input_gradient_by_patches, map_blocks, patches

INDEXED = 1 << 31
"""The array size, in elements, from which `pallas_conv` falls back to these maps, because its indices are int32."""

BLOCK_BYTES = 1 << 28
"""Bytes of patches made at a time for one task."""


def _block(shape: tuple[int, ...], itemsize: int, kernel: int) -> tuple[int, int]:
    """The most examples, a divisor of all, whose patches fit in `BLOCK_BYTES`; and the bytes of one example's."""
    examples, *places_and_channels = shape
    each = math.prod(places_and_channels) * kernel**2 * itemsize
    return divisor_up_to(examples, BLOCK_BYTES // max(each, 1)), each


def _blocks(images: Array, kernel: int) -> int:
    """The fewest blocks of equal size whose patches take at most `BLOCK_BYTES` each."""
    return len(images) // _block(images.shape, images.dtype.itemsize, kernel)[0]


def patch_bytes(images: ShapedArray, second: ShapedArray, kernel: int | None = None) -> int:
    """Bytes of the patches that one of the three maps holds at a time, for all its tasks.

    Args:
        images: shape and dtype of its first argument, `[examples, ...]` or `[tasks, examples, ...]`.
        second: shape and dtype of its second argument.
        kernel: the size of the kernel (None: `second` is the kernel).
    """
    size = second.shape[-4] if kernel is None else kernel
    examples, each = _block(images.shape[-4:], images.dtype.itemsize, size)
    return math.prod(images.shape[:-4]) * examples * each


def _by_blocks(compute: Callable[[Array], Array], images: Array, kernel: int) -> Array:
    """`compute(images)`, block by block; `compute` acts on each image separately."""
    blocks = _blocks(images, kernel)
    if blocks == 1:
        return compute(images)
    return map_blocks(compute, images, len(images) // blocks)


def _conv(x: Array, w: Array, *, stride: int) -> Array:
    return _by_blocks(lambda block: conv_by_patches(block, w, stride), x, w.shape[0])


def _kernel_gradient(x: Array, y: Array, *, stride: int, kernel: int) -> Array:
    def product(block: tuple[Array, Array]) -> Array:
        return jnp.einsum("nhwp,nhwf->pf", patches(block[0], kernel, stride), block[1])

    blocks = _blocks(x, kernel)
    split = tuple(a.reshape(blocks, -1, *a.shape[1:]) for a in (x, y))
    total = product((x, y)) if blocks == 1 else lax.map(product, split).sum(0)
    return total.reshape(kernel, kernel, x.shape[-1], y.shape[-1])


def _input_gradient(y: Array, w: Array, *, stride: int, places: tuple[int, int]) -> Array:
    """For stride 1 and an odd kernel, a convolution with the flipped, transposed kernel."""
    if stride == 1 and w.shape[0] % 2:
        return _conv(y, w[::-1, ::-1].swapaxes(2, 3), stride=1)
    return _by_blocks(lambda block: input_gradient_by_patches(block, w, stride, places), y, w.shape[0])


def _with_tasks(compute: Callable[..., Array]) -> Callable[..., Array]:
    """The map for one task, or for all tasks of a leading axis, with products of this precision."""

    def either(first: Array, second: Array, *, precision: str, **static: object) -> Array:
        one = lambda a, b: compute(a, b, **static)
        with jax.default_matmul_precision(precision):
            return (jax.vmap(one) if first.ndim == 5 else one)(first, second)

    return either


def over_tasks(made: Primitive, first: Array, second: Array, **static: object) -> Array:
    """A map with an axis of tasks, which is merged with the one that its arguments may already have."""
    if first.ndim == 5:
        return made.bind(first, second, **static)
    merged = (a.reshape(-1, *a.shape[2:]) for a in (first, second))
    out = made.bind(*merged, **static)
    return out.reshape(*first.shape[:2], *out.shape[1:])


MAPS = (_with_tasks(_conv), _with_tasks(_kernel_gradient), _with_tasks(_input_gradient))
"""The three maps, `map(first, second, *, precision, ...)`."""

conv_p = bilinear_maps("gpu_conv", *MAPS, over_tasks, "stride", "precision")
