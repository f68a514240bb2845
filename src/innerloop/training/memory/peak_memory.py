"""Peak memory of a program, predicted from its trace, before minutes of compilation.

Walks the equations in order and adds up the live values: each lives from the equation that produces it to the last that
reads it. The body of a loop counts once, its stacked results in full. A value that is produced by an elementwise
operation and read once by another is not counted, since compilers fuse the two. The patches of a convolution count
while it runs.
"""

import math
from collections import Counter
from collections.abc import Callable
from typing import Any

import jax
from jax.extend.core import Jaxpr, JaxprEqn, Literal, jaxprs_in_params
from jax.interpreters.partial_eval import dce_jaxpr

from innerloop.nn.kernels.gpu_conv import INDEXED, patch_bytes

# These are not elementwise, so they are not fused.
WITH_PATCHES = {"gpu_conv", "gpu_conv_kernel_gradient", "gpu_conv_input_gradient"}
PALLAS = {"pallas_conv", "pallas_conv_kernel_gradient", "pallas_conv_input_gradient"}
OF_A_CPU = {"conv", "conv_kernel_gradient", "conv_input_gradient"}
CONVOLUTIONS = {"conv_general_dilated"} | OF_A_CPU | PALLAS | WITH_PATCHES
COPIES = {"concatenate", "gather", "scatter", "scatter-add", "dynamic_update_slice", "sort", "cumsum"}
STANDS_ALONE = CONVOLUTIONS | COPIES | {"dot_general", "scan", "while", "cond"}


def size_of(variable: Any) -> int:
    """Device bytes of a variable of a traced program; 0 if it is kept in host memory."""
    aval = variable.aval
    if getattr(aval, "memory_space", None) == jax.memory.Space.Host:
        return 0
    itemsize = getattr(getattr(aval, "dtype", None), "itemsize", 0)
    return math.prod(getattr(aval, "shape", ())) * itemsize


def peak_of(jaxpr: Jaxpr) -> int:
    """The peak of live bytes among the values that the equations produce (without arguments)."""
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
        inside = max(
            (peak_of(inner) for inner in jaxprs_in_params(equation.params)), default=patches_of(equation)
        )
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
    """Whether this is a Pallas convolution that falls back to patches: too large for its indices, or not float32."""
    if equation.primitive.name not in PALLAS:
        return False
    shapes: list[Any] = [v.aval for v in (*equation.invars, *equation.outvars)]
    too_large = max(math.prod(aval.shape) for aval in shapes) >= INDEXED
    return too_large or any(aval.dtype != "float32" for aval in shapes)


def stands_alone(equation: JaxprEqn) -> bool:
    """Whether operands and results must be in memory, since the equation is not fused with its neighbours."""
    return equation.primitive.name in STANDS_ALONE or any(True for _ in jaxprs_in_params(equation.params))


def predicted_peak(function: Callable[..., object], *arguments: object) -> int:
    """Peak bytes of `function(*arguments)`, without the arguments. Arrays may be `jax.ShapeDtypeStruct`s."""
    jaxpr = jax.make_jaxpr(function)(*arguments).jaxpr
    read, _ = dce_jaxpr(jaxpr, [True] * len(jaxpr.outvars))  # scans stack results that are never read
    return peak_of(read)
