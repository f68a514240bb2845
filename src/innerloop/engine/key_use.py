"""Whether a function of a key takes its randomness from the key, read off its traced program.

A function that draws from NumPy or Python instead is traced with the numbers of that moment: the compiled program draws
the same ones for ever. Two traces of such a function differ in their constants, and its result does not depend on its
key.
"""

from collections.abc import Callable, Iterator

import jax
import numpy as np
from jax.extend import core as jex
from jaxtyping import PyTree


def trace(fn: Callable[..., PyTree], *args: PyTree) -> tuple[jex.ClosedJaxpr, PyTree]:
    """The program of `fn(*args)`, traced anew in every call, and the shapes of its result.

    Arguments may be `jax.ShapeDtypeStruct`.
    """
    return jax.make_jaxpr(lambda *args: fn(*args), return_shape=True)(*args)


def reads_first(program: jex.ClosedJaxpr) -> bool:
    """Whether a result depends on the first argument. Loops and branches count as reading all that they are given."""
    return any(_depends(program.jaxpr, [True] + [False] * (len(program.jaxpr.invars) - 1)))


def has_other_constants(program: jex.ClosedJaxpr, again: jex.ClosedJaxpr) -> bool:
    """Whether two traces of one function differ in a constant: it drew numbers while it was traced."""
    first, second = (list(_constants(p)) for p in (program, again))
    if len(first) != len(second):
        return True
    same = lambda a, b: a.shape == b.shape and np.array_equal(a, b, equal_nan=a.dtype.kind == "f")
    return not all(same(a, b) for a, b in zip(first, second, strict=True))


def _depends(jaxpr: jex.Jaxpr, moving: list[bool]) -> list[bool]:
    """Which outputs depend on those inputs that are marked."""
    known = {v for v, moves in zip(jaxpr.invars, moving, strict=True) if moves}
    reads = lambda atoms: [isinstance(v, jex.Var) and v in known for v in atoms]
    for equation in jaxpr.eqns:
        given = reads(equation.invars)
        inside = equation.params["jaxpr"].jaxpr if equation.primitive.name in ("jit", "pjit") else None
        found = [any(given)] * len(equation.outvars) if inside is None else _depends(inside, given)
        known.update(v for v, moves in zip(equation.outvars, found, strict=True) if moves)
    return reads(jaxpr.outvars)


def _constants(program: jex.ClosedJaxpr) -> Iterator[np.ndarray]:
    """Every number that is part of a program: captured arrays and literals, also those of inner programs."""
    yield from map(np.asarray, program.consts)
    yield from _literals(program.jaxpr)


def _literals(jaxpr: jex.Jaxpr) -> Iterator[np.ndarray]:
    for equation in jaxpr.eqns:
        yield from (np.asarray(v.val) for v in equation.invars if isinstance(v, jex.Literal))
        for value in equation.params.values():
            for inside in value if isinstance(value, (tuple, list)) else (value,):
                if isinstance(inside, jex.ClosedJaxpr):
                    yield from _constants(inside)
                elif isinstance(inside, jex.Jaxpr):
                    yield from _literals(inside)
    yield from (np.asarray(v.val) for v in jaxpr.outvars if isinstance(v, jex.Literal))
