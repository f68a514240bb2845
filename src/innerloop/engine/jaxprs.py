"""Traced programs: their equations and constants, what depends on what, and parts of them as functions."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from jax.extend import core as jex
from jaxtyping import ArrayLike

CALLS = frozenset({"jit", "closed_call", "custom_jvp_call", "custom_vjp_call", "remat2"})
"""Equations that call one jaxpr with all of their operands."""


def all_equations(jaxpr: jex.Jaxpr) -> Iterator[jex.JaxprEqn]:
    """All equations of a jaxpr, including nested ones."""
    for equation in jaxpr.eqns:
        yield equation
        for inner in jex.jaxprs_in_params(equation.params):
            yield from all_equations(inner)


def function_of(
    whole: jex.ClosedJaxpr, equations: Sequence[jex.JaxprEqn], inputs: Sequence[jex.Var], outputs: Sequence
) -> Callable[..., list[ArrayLike]]:
    """A function that runs `equations` of `whole` on values for `inputs` and returns those of `outputs`."""
    jaxpr = whole.jaxpr
    part = jex.Jaxpr(
        jaxpr.constvars,
        list(inputs),
        list(outputs),
        list(equations),
        jaxpr.effects,
        debug_info=jaxpr.debug_info,  # without it JAX warns
    )
    return jex.jaxpr_as_fun(jex.ClosedJaxpr(part, whole.consts))


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
