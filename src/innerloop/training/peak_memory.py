"""Peak memory of a program, predicted from its trace: before the minutes of compiling, not after.

Walk the equations in order and add up what is alive: a value from the equation that makes it to the last that reads it.
The body of a loop is alive once, its stacked results as a whole. A value that an elementwise operation makes and
another one reads, once, is not counted, since compilers fuse the two. Patches of a convolution count while it works.
"""

import math
from collections import Counter
from collections.abc import Callable
from typing import Any

import jax
from jax.extend.core import ClosedJaxpr, Jaxpr, JaxprEqn, Literal
from jax.interpreters.partial_eval import dce_jaxpr

from innerloop.nn.kernels.gpu_conv import INDEXED, patch_bytes

# Not elementwise, so that they are fused with nothing.
WITH_PATCHES = {"gpu_conv", "gpu_conv_kernel_gradient", "gpu_conv_input_gradient"}
PALLAS = {"pallas_conv", "pallas_conv_kernel_gradient", "pallas_conv_input_gradient"}
OF_A_CPU = {"conv", "conv_kernel_gradient", "conv_input_gradient"}
CONVOLUTIONS = {"conv_general_dilated"} | OF_A_CPU | PALLAS | WITH_PATCHES
COPIES = {"concatenate", "gather", "scatter", "scatter-add", "dynamic_update_slice", "sort", "cumsum"}
STANDS_ALONE = CONVOLUTIONS | COPIES | {"dot_general", "scan", "while", "cond"}


def size_of(variable: Any) -> int:
    """Bytes of a variable of a traced program; none of the device where the host keeps it."""
    aval = variable.aval
    if getattr(aval, "memory_space", None) == jax.memory.Space.Host:
        return 0
    itemsize = getattr(getattr(aval, "dtype", None), "itemsize", 0)
    return math.prod(getattr(aval, "shape", ())) * itemsize


def peak_of(jaxpr: Jaxpr) -> int:
    """Bytes alive at once at most, of the values that the equations make (arguments are the caller's)."""
    readers: dict[Any, list[int]] = {
        v: [len(jaxpr.eqns)] for v in jaxpr.outvars if not isinstance(v, Literal)
    }
    for i, equation in enumerate(jaxpr.eqns):
        for v in equation.invars:
            if not isinstance(v, Literal):
                readers.setdefault(v, []).append(i)
    alone = [stands_alone(equation) for equation in jaxpr.eqns] + [True]
    alive = peak = 0
    freed: Counter[int] = Counter()
    for i, equation in enumerate(jaxpr.eqns):
        for v in equation.outvars:
            by = readers.get(v, [i])
            size = size_of(v) if alone[i] or alone[by[0]] or len(by) > 1 else 0
            alive += size
            freed[max(by)] += size
        inside = max((peak_of(inner) for inner in inner_jaxprs(equation)), default=patches_of(equation))
        peak = max(peak, alive + inside)
        alive -= freed[i]
    return peak


def patches_of(equation: JaxprEqn) -> int:
    """Bytes of the patches that a convolution on a GPU makes; 0 for everything else."""
    if equation.primitive.name not in WITH_PATCHES and not left_by_pallas(equation):
        return 0
    images, second = (v.aval for v in equation.invars)
    return patch_bytes(images, second, equation.params.get("kernel"))  # pyright: ignore[reportArgumentType]


def left_by_pallas(equation: JaxprEqn) -> bool:
    """Whether this is a convolution by Pallas that goes by patches after all: too large for its indices, or of floats
    that its tiles do not sum."""
    if equation.primitive.name not in PALLAS:
        return False
    shapes: list[Any] = [v.aval for v in (*equation.invars, *equation.outvars)]
    too_large = max(math.prod(aval.shape) for aval in shapes) >= INDEXED
    return too_large or any(aval.dtype != "float32" for aval in shapes)


def stands_alone(equation: JaxprEqn) -> bool:
    """Whether operands and results must lie in memory, not fused with what makes or reads them."""
    return equation.primitive.name in STANDS_ALONE or bool(inner_jaxprs(equation))


def inner_jaxprs(equation: JaxprEqn) -> list[Jaxpr]:
    """Bodies of loops and calls."""
    values = [v if isinstance(v, tuple) else (v,) for v in equation.params.values()]
    found = [v for several in values for v in several if isinstance(v, Jaxpr | ClosedJaxpr)]
    return [j.jaxpr if isinstance(j, ClosedJaxpr) else j for j in found]


def predicted_peak(function: Callable[..., object], *arguments: object) -> int:
    """Bytes that `function(*arguments)` holds at most, arguments aside. Arrays may be `jax.ShapeDtypeStruct`s."""
    jaxpr = jax.make_jaxpr(function)(*arguments).jaxpr
    read, _ = dce_jaxpr(jaxpr, [True] * len(jaxpr.outvars))  # scans stack results that nothing reads
    return peak_of(read)
