r"""The three maps of a convolution on a GPU by Pallas: matrix products with patches that are never written out.

Every program gathers the rows of patches that its part of the result needs, one position of the window at a time, and
multiplies them by that position's share of the kernel. All tasks are one launch. The arrays are read by flat indices,
so that padding is a mask and an axis of tasks, or of none, is arithmetic.

Elsewhere than on a GPU the kernels run in Pallas's interpreter, which is slow and exact: for tests.
"""

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton
from jaxtyping import Array, Int

from innerloop.nn.kernels.bilinear_conv import bilinear_conv
from innerloop.nn.kernels.gpu_conv import INDEXED, MAPS, batched_over_tasks
from innerloop.nn.kernels.im2col import same_padding

ROWS = 64
"""Places of a program at a time."""

PARTS = 512
"""Programs that share the sum of one kernel gradient, at most, over all tasks and positions of the window."""


def interpreted() -> bool:
    """Whether there is no GPU to compile for."""
    return jax.default_backend() != "gpu"


def _tile(size: int) -> int:
    """A power of two that holds `size`, and that a product takes."""
    return max(16, 1 << (size - 1).bit_length())


def _read(ref: Any, index: Int[Array, "..."], mask: Array) -> Array:
    """Numbers at flat indices; 0 where there is none."""
    return triton.load(ref.at[jnp.where(mask, index, 0)], mask=mask, other=0)


def _write(ref: Any, index: Int[Array, "..."], mask: Array, values: Array) -> None:
    """Numbers to flat indices. The interpreter writes where the mask is off, too: there, to a last place to spare."""
    spare = ref.shape[0] - 1 if interpreted() else 0
    triton.store(ref.at[jnp.where(mask, index, spare)], values, mask=mask)


def _product(a: Array, b: Array, contract: tuple[int, int], precision: str) -> Array:
    """A product of tiles, which sums in the result's precision."""
    kind = a.dtype
    if precision == "BF16_BF16_F32":
        a, b, precision = a.astype(jnp.bfloat16), b.astype(jnp.bfloat16), "highest"
    with jax.default_matmul_precision(precision):
        dims = (((contract[0],), (contract[1],)), ((), ()))
        return lax.dot_general(a, b, dims, preferred_element_type=kind)


class _Window:
    """Where a position of the window reads, for places of the result: images `[examples, height, width]`.

    Forward, place i reads i * stride + offset - padding. Backward it reads the place that forward would have read i, if
    there is one.
    """

    def __init__(self, kernel: int, stride: int, images: tuple[int, int], backward: bool):
        self.kernel, self.stride, self.backward = kernel, stride, backward
        self.padding = [same_padding(size, kernel, stride)[0] for size in images]
        small = [-(-size // stride) for size in images]
        self.source, self.result = (small, list(images)) if backward else (list(images), small)

    def along(self, axis: int, place: Array, offset: Array | int) -> tuple[Array, Array]:
        """The place that is read along one axis, and whether it is there."""
        if self.backward:
            moved = place + self.padding[axis] - offset
            at, fits = moved // self.stride, moved % self.stride == 0
        else:
            at, fits = place * self.stride + offset - self.padding[axis], True
        return at, fits & (at >= 0) & (at < self.source[axis])

    def read(self, ref: Any, m: Array, examples: int, channels: int, task: Array, a: Any, b: Any) -> Array:
        """What position (a, b) of the window reads for the places `m`, `[places, channels]`."""
        height, width = self.result
        row, fits_row = self.along(0, m // width % height, a)
        column, fits_column = self.along(1, m % width, b)
        example = task * examples + m // (height * width)
        start = ((example * self.source[0] + row) * self.source[1] + column) * channels
        c = jnp.arange(_tile(channels))
        there = fits_row & fits_column & (m < examples * height * width)
        return _read(ref, start[:, None] + c, there[:, None] & (c < channels))


def _windows_times_kernel(
    source: Any, w: Any, out: Any, *, window: _Window, examples: int, sizes: tuple[int, int], precision: str
) -> None:
    """One program of `conv` or, backwards, of `input_gradient`: some places, all channels of the result."""
    task, (inner, outer) = pl.program_id(0), sizes
    m = pl.program_id(1) * ROWS + jnp.arange(ROWS)
    c, f = jnp.arange(_tile(inner))[:, None], jnp.arange(_tile(outer))
    fits = (c < inner) & (f < outer)
    within = f * inner + c if window.backward else c * outer + f
    total = jnp.zeros((ROWS, _tile(outer)), out.dtype)
    for a in range(window.kernel):
        for b in range(window.kernel):
            rows = window.read(source, m, examples, inner, task, a, b)
            position = ((task * window.kernel + a) * window.kernel + b) * inner * outer
            total += _product(rows, _read(w, position + within, fits), (1, 0), precision)
    places = examples * math.prod(window.result)
    mask = (m < places)[:, None] & (f < outer)
    _write(out, (task * places + m)[:, None] * outer + f, mask, total)


def _windows_times_result(
    x: Any,
    y: Any,
    out: Any,
    *,
    window: _Window,
    examples: int,
    sizes: tuple[int, int],
    blocks: int,
    precision: str,
) -> None:
    """One program of `kernel_gradient`: one position of the window, a part of the places."""
    task, position, part = (pl.program_id(axis) for axis in range(3))
    (channels, filters), places = sizes, examples * math.prod(window.result)
    c, f = jnp.arange(_tile(channels))[:, None], jnp.arange(_tile(filters))
    a, b = position // window.kernel, position % window.kernel

    def add(number: Array, total: Array) -> Array:
        m = (part * blocks + number) * ROWS + jnp.arange(ROWS)
        rows = window.read(x, m, examples, channels, task, a, b)
        mask = (m < places)[:, None] & (f < filters)
        values = _read(y, (task * places + m)[:, None] * filters + f, mask)
        return total + _product(rows, values, (0, 0), precision)

    total = lax.fori_loop(0, blocks, add, jnp.zeros((len(c), len(f)), out.dtype))
    mask = (c < channels) & (f < filters)
    start = ((task * pl.num_programs(1) + position) * pl.num_programs(2) + part) * channels * filters
    _write(out, start + c * filters + f, mask, total)


def _launch(
    program: Any, grid: tuple[int, ...], shape: tuple[int, ...], first: Array, second: Array
) -> Array:
    """Run the programs of a grid on flat arrays."""
    size = math.prod(shape)
    out = jax.ShapeDtypeStruct((size + interpreted(),), first.dtype)
    call = pl.pallas_call(
        program,
        out_shape=out,
        grid=grid,
        interpret=interpreted(),
        compiler_params=None if interpreted() else triton.CompilerParams(num_warps=4),
    )
    return call(first.reshape(-1), second.reshape(-1))[:size].reshape(shape)


def _by_windows(
    source: Array, w: Array, stride: int, images: tuple[int, int], backward: bool, precision: str
) -> Array:
    """`conv`, or backwards `input_gradient`, for arrays with or without an axis of tasks."""
    tasks, examples, inner = math.prod(source.shape[:-4]), source.shape[-4], source.shape[-1]
    outer = w.shape[-2] if backward else w.shape[-1]
    window = _Window(w.shape[-4], stride, images, backward)
    settings = {"window": window, "examples": examples, "sizes": (inner, outer), "precision": precision}
    grid = (tasks, pl.cdiv(examples * math.prod(window.result), ROWS))
    shape = (*source.shape[:-3], *window.result, outer)
    return _launch(partial(_windows_times_kernel, **settings), grid, shape, source, w)


def _or(by_patches: Callable[..., Array]) -> Callable[[Callable[..., Array]], Callable[..., Array]]:
    """A map of this module, but by patches for arrays that flat indices do not reach."""

    def choosing(own: Callable[..., Array]) -> Callable[..., Array]:
        def either(first: Array, second: Array, **static: Any) -> Array:
            out = jax.eval_shape(partial(by_patches, **static), first, second)
            reached = max(first.size, second.size, out.size) < INDEXED
            return (own if reached else by_patches)(first, second, **static)

        return either

    return choosing


@_or(MAPS[0])
def _conv(x: Array, w: Array, *, stride: int, precision: str) -> Array:
    return _by_windows(x, w, stride, (x.shape[-3], x.shape[-2]), False, precision)


@_or(MAPS[2])
def _input_gradient(y: Array, w: Array, *, stride: int, places: tuple[int, int], precision: str) -> Array:
    return _by_windows(y, w, stride, places, True, precision)


@_or(MAPS[1])
def _kernel_gradient(x: Array, y: Array, *, stride: int, kernel: int, precision: str) -> Array:
    tasks, examples, sizes = math.prod(x.shape[:-4]), x.shape[-4], (x.shape[-1], y.shape[-1])
    window = _Window(kernel, stride, (x.shape[-3], x.shape[-2]), False)
    blocks = pl.cdiv(examples * math.prod(window.result), ROWS)
    parts = max(1, min(blocks, PARTS // max(1, tasks * kernel**2)))
    settings = {"window": window, "examples": examples, "sizes": sizes, "precision": precision}
    program = partial(_windows_times_result, blocks=pl.cdiv(blocks, parts), **settings)
    found = _launch(program, (tasks, kernel**2, parts), (tasks, kernel**2, parts, *sizes), x, y)
    return found.sum(2).reshape(*x.shape[:-4], kernel, kernel, *sizes)


conv_p = bilinear_conv(
    "pallas_conv", _conv, _kernel_gradient, _input_gradient, batched_over_tasks, "precision"
)
