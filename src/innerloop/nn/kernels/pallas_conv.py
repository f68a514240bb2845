r"""The three maps of a convolution on a GPU in Pallas: matrix products with patches that are never written to memory.

Every program gathers the patch rows that its part of the result needs, some elements of the window at a time, and
multiplies them by the matching part of the kernel. All tasks are one launch. The arrays are read by flat indices, so
padding is a mask, and an optional axis of tasks is index arithmetic.

Without a GPU, the kernels run in Pallas's interpreter, which is slow and exact; this is for tests.
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
from jaxtyping import Array

from innerloop.nn.kernels.bilinear_conv import bilinear_maps
from innerloop.nn.kernels.gpu_conv import INDEXED, MAPS, over_tasks
from innerloop.nn.kernels.pallas_tiles import Tiles, tiles_for
from innerloop.nn.kernels.pallas_window import Window, divided, interpreted, read, tile, width, write

PROGRAMS, BLOCKS = 4096, 8
"""The approximate number of programs that share the sums of a kernel gradient, over all tasks and elements of the
window; and the fewest blocks of places that each one sums, because its own sum is written and read once more."""


def _product(a: Array, b: Array, axis: int, precision: str, exact: str) -> Array:
    """The product of two tiles, contracted along this axis of both and summed in the precision of the result."""
    kind = a.dtype
    if precision == "BF16_BF16_F32":
        a, b, precision = a.astype(jnp.bfloat16), b.astype(jnp.bfloat16), "highest"
    elif precision == "highest" and exact == "x3" and not interpreted():
        precision = "TF32_TF32_F32_X3"
    with jax.default_matmul_precision(precision):
        return lax.dot_general(a, b, (((axis,), (axis,)), ((), ())), preferred_element_type=kind)


def _sum(count: int | Array, add: Callable[[Array, Array], Array], start: Array) -> Array:
    """Accumulate `add(number, total)` over all numbers below `count`."""
    if isinstance(count, int) and count == 1:
        return add(jnp.int32(0), start)
    return lax.fori_loop(jnp.int32(0), jnp.int32(count), add, start)


def _windows_times_kernel(
    source: Any,
    w: Any,
    out: Any,
    *,
    window: Window,
    examples: int,
    outer: int,
    blocks: int,
    tiles: Tiles,
    precision: str,
) -> None:
    """One program of `conv` or, backward, of `input_gradient`: some places of a task, some channels of the result."""
    rest, part = divided(pl.program_id(0), pl.cdiv(outer, width(outer, tiles.filters)))
    rest, group = divided(rest, window.step**2)
    task, block = divided(rest, blocks)
    places = window.places(group, block, tiles.rows, task * examples, examples)
    f, fits_f = tile(part, outer, tiles.filters)

    def add(number: Array, total: Array) -> Array:
        a, b, (c, fits) = window.elements(places, number)
        element = (a * window.kernel + b) * window.channels + c
        at = (task * outer + f)[:, None] * window.size + element
        kernel = read(w, at, fits_f[:, None] & fits)
        rows = window.read(source, places, a, b, (c, fits))
        return total + _product(rows, kernel, 1, precision, tiles.products)

    products = window.products
    if window.step > 1:
        products = places.counts[0] * places.counts[1] * window.parts
    total = _sum(products, add, jnp.zeros((tiles.rows, len(f)), out.dtype))
    at = (places.image * window.result[0] + places.row) * window.result[1] + places.column
    write(out, at[:, None] * outer + f, places.there[:, None] & fits_f, total)


def _windows_times_result(
    x: Any,
    y: Any,
    out: Any,
    *,
    window: Window,
    examples: int,
    filters: int,
    parts: int,
    tiles: Tiles,
    precision: str,
) -> None:
    """One program of `kernel_gradient`: some elements of the window, some filters, a part of a task's places."""
    size = math.prod(window.result)
    blocks = pl.cdiv(pl.cdiv(examples * size, tiles.rows), parts)
    rest, filter_part = divided(pl.program_id(0), pl.cdiv(filters, width(filters, tiles.filters)))
    rest, number = divided(rest, window.products)
    task, part = divided(rest, parts)
    f, fits_f = tile(filter_part, filters, tiles.filters)

    def block(index: Array) -> Any:
        return window.places(jnp.int32(0), part * blocks + index, tiles.rows, task * examples, examples)

    a, b, (c, fits) = window.elements(block(jnp.int32(0)), number)

    def add(index: Array, total: Array) -> Array:
        places = block(index)
        m = (part * blocks + index) * tiles.rows + jnp.arange(tiles.rows, dtype=jnp.int32)
        at = (task * examples * size + m)[:, None] * filters + f
        values = read(y, at, places.there[:, None] & fits_f)
        rows = window.read(x, places, a, b, (c, fits))
        return total + _product(rows, values, 0, precision, tiles.products)

    total = _sum(blocks, add, jnp.zeros((len(c), len(f)), out.dtype))
    row = rest * window.size + (a * window.kernel + b) * window.channels + c
    write(out, row[:, None] * filters + f, fits[:, None] & fits_f, total)


def _launch(
    program: Any, programs: int, shape: tuple[int, ...], first: Array, second: Array, tiles: Tiles
) -> Array:
    """Run the programs on flat arrays."""
    size = math.prod(shape)
    compiled = triton.CompilerParams(num_warps=tiles.warps, num_stages=tiles.stages)
    call = pl.pallas_call(
        program,
        out_shape=jax.ShapeDtypeStruct((size + interpreted(),), first.dtype),
        grid=(programs,),
        interpret=interpreted(),
        compiler_params=None if interpreted() else compiled,
    )
    return call(first.reshape(-1), second.reshape(-1))[:size].reshape(shape)


def _by_windows(
    source: Array, w: Array, stride: int, images: tuple[int, int], backward: bool, precision: str
) -> Array:
    """`conv` or, backward, `input_gradient`, for arrays with or without an axis of tasks."""
    tasks, examples, inner = math.prod(source.shape[:-4]), source.shape[-4], source.shape[-1]
    outer = w.shape[-2] if backward else w.shape[-1]
    name = "input_gradient" if backward else "conv"
    tiles = tiles_for(name, precision, w.shape[-4] ** 2 * inner, outer)
    window = Window(w.shape[-4], stride, images, inner, backward, tiles.channels)
    # All elements of one channel of the result are contiguous.
    kernels = jnp.moveaxis(w, -2 if backward else -1, -4)
    blocks = pl.cdiv(examples * math.prod(window.grid), tiles.rows)
    settings = {"window": window, "examples": examples, "outer": outer, "blocks": blocks, "tiles": tiles}
    program = partial(_windows_times_kernel, precision=precision, **settings)
    programs = tasks * blocks * window.step**2 * pl.cdiv(outer, width(outer, tiles.filters))
    shape = (*source.shape[:-3], *window.result, outer)
    return _launch(program, programs, shape, source, kernels, tiles)


def _conv(x: Array, w: Array, *, stride: int, precision: str) -> Array:
    return _by_windows(x, w, stride, (x.shape[-3], x.shape[-2]), False, precision)


def _input_gradient(y: Array, w: Array, *, stride: int, places: tuple[int, int], precision: str) -> Array:
    return _by_windows(y, w, stride, places, True, precision)


def _kernel_gradient(x: Array, y: Array, *, stride: int, kernel: int, precision: str) -> Array:
    tasks, examples, filters = math.prod(x.shape[:-4]), x.shape[-4], y.shape[-1]
    tiles = tiles_for("kernel_gradient", precision, kernel**2 * x.shape[-1], filters)
    window = Window(kernel, stride, (x.shape[-3], x.shape[-2]), x.shape[-1], False, tiles.channels)
    programs = tasks * window.products * pl.cdiv(filters, width(filters, tiles.filters))
    blocks = pl.cdiv(examples * math.prod(window.result), tiles.rows)
    parts = max(1, min(blocks // BLOCKS, PROGRAMS // max(1, programs)))
    settings = {"window": window, "examples": examples, "filters": filters, "parts": parts, "tiles": tiles}
    program = partial(_windows_times_result, precision=precision, **settings)
    found = _launch(program, programs * parts, (tasks, parts, window.size * filters), x, y, tiles)
    return found.sum(1).reshape(*x.shape[:-4], kernel, kernel, x.shape[-1], filters)


def _or_by_patches(own: Callable[..., Array], by_patches: Callable[..., Array]) -> Callable[..., Array]:
    """A map of this module, or by patches where it does not apply.

    These are other devices (such as the CPU next to a GPU), arrays too large for flat indices, and float types that its
    tiles do not sum.
    """

    def either(first: Array, second: Array, **static: Any) -> Array:
        ours, theirs = partial(own, **static), partial(by_patches, **static)
        out = jax.eval_shape(theirs, first, second)
        if max(first.size, second.size, out.size) >= INDEXED:
            return theirs(first, second)
        if interpreted():
            return ours(first, second)
        if first.dtype != jnp.float32:
            return theirs(first, second)
        return lax.platform_dependent(first, second, cuda=ours, default=theirs)

    return either


conv_p = bilinear_maps(
    "pallas_conv",
    _or_by_patches(_conv, MAPS[0]),
    _or_by_patches(_kernel_gradient, MAPS[1]),
    _or_by_patches(_input_gradient, MAPS[2]),
    over_tasks,
    "stride",
    "precision",
)
