"""Dependency analysis of traced programs."""

from collections.abc import Iterator
from typing import Any

from jax.extend import core as jex

CALLS = frozenset(
    {"jit", "pjit", "closed_call", "custom_jvp_call", "custom_vjp_call", "checkpoint", "remat2"}
)
"""Equations that call one jaxpr with all of their operands."""


def dependent(jaxpr: jex.Jaxpr, inputs: list[bool]) -> list[bool]:
    """Which results of a jaxpr depend on the marked inputs; for branches and `while` loops, all that might."""
    marked = {variable for variable, mark in zip(jaxpr.invars, inputs, strict=True) if mark}
    marks = lambda atoms: [isinstance(x, jex.Var) and x in marked for x in atoms]
    for equation in jaxpr.eqns:
        results = _results(equation, marks(equation.invars))
        marked.update(x for x, mark in zip(equation.outvars, results, strict=True) if mark)
    return marks(jaxpr.outvars)


def _results(equation: jex.JaxprEqn, given: list[bool]) -> list[bool]:
    """Which results of one equation depend on its marked operands."""
    inner = list(jex.jaxprs_in_params(equation.params))
    if equation.primitive.name == "scan":
        return _scanned(inner[0], given, *_counts(equation))
    if equation.primitive.name in CALLS and len(inner) == 1:
        return dependent(inner[0], given)
    return [any(given)] * len(equation.outvars)


def _counts(scan: jex.JaxprEqn) -> tuple[int, int]:
    """How many of a scan's operands are constants of its step, and how many are carried."""
    if "num_consts" in scan.params:
        return scan.params["num_consts"], scan.params["num_carry"]
    constants, carry, _ = scan.params["ft_in"].update([None] * len(scan.invars)).unpack()  # from JAX 0.11 on
    return len(list(constants)), len(list(carry))


def _scanned(step: jex.Jaxpr, given: list[bool], constants: int, carried: int) -> list[bool]:
    """The same for a scan, whose carry accumulates marks from step to step."""
    given = list(given)
    while True:
        results = dependent(step, given)
        carry = slice(constants, constants + carried)
        after = [a or b for a, b in zip(given[carry], results[:carried], strict=True)]
        if after == given[carry]:
            return [*after, *results[carried:]]
        given[carry] = after


def constants_of(traced: jex.ClosedJaxpr) -> Iterator[Any]:
    """All constants and literals of a traced program, including those inside its equations."""
    yield from traced.consts
    yield from _literals(traced.jaxpr)


def _literals(jaxpr: jex.Jaxpr) -> Iterator[Any]:
    """The numbers in the equations of a jaxpr."""
    for equation in jaxpr.eqns:
        yield from (x.val for x in equation.invars if isinstance(x, jex.Literal))
        for inner in jex.jaxprs_in_params(equation.params):
            yield from _literals(inner)
    yield from (x.val for x in jaxpr.outvars if isinstance(x, jex.Literal))
