r"""The derivative of a rule's square roots at zero.

Adam, RMSProp, norm clipping and others take the square root of a sum of squared gradients. Where the gradient is
exactly zero (a solved or fully masked task, a dead unit), automatic differentiation multiplies the infinite slope of
the root by zero and gets NaN. `with_safe_roots` gives the root slope 0 there: sqrt(sum g^2) is even in g, so 0 is its
symmetric derivative. A quotient by such a root gets slope 0 there too. Wherever the rule itself is differentiable, this
is the rule's true derivative: that of u = g min(1, c / |g|) at g = 0 is 1, and that of u = g / (|g| + eps) is 1 / eps.
Values are unchanged.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import lax
from jax.extend import core as jex
from jaxtyping import Array, ArrayLike, PyTree

from innerloop.engine.jaxprs import all_equations, function_of


def safe_sqrt(x: ArrayLike) -> Array:
    """The square root, with derivative 0 at 0."""
    x = jnp.asarray(x)
    return lax.select(x == 0, lax.stop_gradient(x), lax.sqrt(_nonzero(x)))


@jax.custom_jvp
def safe_div(x: ArrayLike, y: ArrayLike) -> Array:
    """The quotient, with derivative 0 where the divisor is 0 (a norm, in a branch that is not taken).

    Its own rule does not overflow where the divisor is tiny. In a scan that is differentiated twice, JAX forgets the
    rule, so the function is written such that its derivative at 0 is 0 without it too.
    """
    x, y = jnp.asarray(x), jnp.asarray(y)
    return lax.select(y == 0, lax.div(*lax.stop_gradient((x, y))), lax.div(x, _nonzero(y)))


@safe_div.defjvp
def _safe_div_jvp(primals: tuple[ArrayLike, ArrayLike], tangents: tuple[Array, Array]) -> tuple[Array, Array]:
    (x, y), (dx, dy) = primals, tangents
    divisor = _nonzero(jnp.asarray(y))
    return safe_div(x, y), jnp.where(y == 0, 0, dx / divisor - x * dy / divisor / divisor)


def _nonzero(x: Array) -> Array:
    """The same with 1 in place of 0."""
    return lax.select(x == 0, lax.full_like(x, 1), x)


SAFE = {"sqrt": safe_sqrt, "div": safe_div}
"""The replacements of primitives, by name."""


def with_safe_roots(fn: Callable[..., PyTree]) -> Callable[..., PyTree]:
    """The same function of pytrees of arrays with safe square roots and quotients; unchanged if it takes no root."""

    def safe(*args: PyTree) -> PyTree:
        jaxpr, shapes = jax.make_jaxpr(fn, return_shape=True)(*args)
        if not any(equation.primitive.name == "sqrt" for equation in all_equations(jaxpr.jaxpr)):
            return fn(*args)
        found = _evaluate(jaxpr, jax.tree.leaves(args))
        return jax.tree.unflatten(jax.tree.structure(shapes), found)

    return safe


def _evaluate(closed: jex.ClosedJaxpr, args: list[ArrayLike]) -> list[ArrayLike]:
    """Run a jaxpr with safe square roots and quotients, including in the functions that it calls."""
    jaxpr = closed.jaxpr
    values = dict(zip([*jaxpr.constvars, *jaxpr.invars], [*closed.consts, *args], strict=True))
    read = lambda v: v.val if isinstance(v, jex.Literal) else values[v]
    for equation in jaxpr.eqns:
        found = _apply(closed, equation, [read(v) for v in equation.invars])
        values.update(zip(equation.outvars, found, strict=True))
    return [read(v) for v in jaxpr.outvars]


def _apply(closed: jex.ClosedJaxpr, equation: jex.JaxprEqn, inputs: list[ArrayLike]) -> list[ArrayLike]:
    """The outputs of one equation of a jaxpr."""
    if equation.primitive.name in SAFE:
        return [SAFE[equation.primitive.name](*inputs)]
    if equation.primitive.name == "jit":
        return _evaluate(equation.params["jaxpr"], inputs)
    if equation.primitive.name == "cond":
        branches = [
            lambda *args, branch=b: _evaluate(branch, list(args)) for b in equation.params["branches"]
        ]
        return lax.switch(inputs[0], branches, *inputs[1:])
    given = {v: x for v, x in zip(equation.invars, inputs, strict=True) if isinstance(v, jex.Var)}
    return function_of(closed, [equation], list(given), equation.outvars)(*given.values())
