"""Compare custom derivatives within a loss with the true derivatives of their functions.

Mixed mode relies on the symmetry of second derivatives. A straight-through estimator or a surrogate gradient is not the
gradient of the loss, so its derivative is not symmetric, and mixed mode would silently compute a different
meta-gradient from the other modes. The rules are compared on random numbers with the shapes of the traced program.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend import core as jex
from jaxtyping import Array, PyTree

from innerloop.engine.jaxprs import all_equations, function_of
from innerloop.errors import InnerloopError

CUSTOM = frozenset({"custom_jvp_call", "custom_vjp_call"})
TOLERANCE = 1e-2
"""The relative error above which two derivatives count as different; bfloat16 rounding stays below it."""


def check_true_derivatives(loss: Callable[..., PyTree], *arguments: PyTree) -> None:
    """Raise InnerloopError if a custom derivative within a loss is not its function's true derivative.

    Args:
        loss: the loss, as a function of arguments with these shapes.
        arguments: arrays or tracers.
    """
    traced = jax.make_jaxpr(lambda *given: loss(*given))(*arguments)
    for equation in all_equations(traced.jaxpr):
        if equation.primitive.name in CUSTOM and not _is_true(equation):
            kind = equation.primitive.name.removesuffix("_call")
            hint = "use `derivative` rematerialised or unrolled"
            wrong = f"mixed mode needs true derivatives, but a `{kind}` within the loss has a different rule"
            raise InnerloopError("InnerLoop", wrong, hint=hint)


def _is_true(equation: jex.JaxprEqn) -> bool:
    """Whether an equation's rule gives the true derivative of its function, or cannot be compared."""
    with jax.ensure_compile_time_eval():
        try:
            cotangents = [
                _vjp_results(function, equation.invars) for function in _rule_and_function(equation)
            ]
        except Exception:  # the rule cannot be run on its own, for example on keys
            return True
    return all(_close(own, true) for own, true in zip(*cotangents, strict=True))


def _rule_and_function(equation: jex.JaxprEqn) -> tuple[Callable[..., list], Callable[..., list]]:
    """The equation with its custom derivative, and without."""
    operands = [jex.Var(x.aval) for x in equation.invars]
    alone = equation.replace(invars=list(operands))
    called = equation.params["call_jaxpr"]
    return function_of(called, [alone], operands, equation.outvars), jex.jaxpr_as_fun(called)


def _vjp_results(function: Callable[..., list], operands: list) -> list[np.ndarray]:
    """The cotangents that `function` pulls back to its float operands, at random inputs, from random cotangents."""
    rng = np.random.default_rng(0)
    given = [_drawn(rng, x.aval.shape, x.aval.dtype) for x in operands]
    floating = [i for i, x in enumerate(given) if jnp.issubdtype(x.dtype, jnp.floating)]

    def of_floats(*values: Array) -> list[Array]:
        chosen = dict(zip(floating, values, strict=True))
        results = function(*[chosen.get(i, x) for i, x in enumerate(given)])
        return [x for x in results if jnp.issubdtype(x.dtype, jnp.floating)]

    results, pull = jax.vjp(of_floats, *[given[i] for i in floating])
    return [np.asarray(x, np.float64) for x in pull([_drawn(rng, x.shape, x.dtype) for x in results])]


def _drawn(rng: np.random.Generator, shape: tuple[int, ...], dtype: np.dtype) -> Array:
    """Random numbers on both sides of zero; ones for dtypes other than floats."""
    if not jnp.issubdtype(dtype, jnp.floating):
        return jnp.ones(shape, dtype)
    return jnp.asarray(2 * rng.normal(size=shape), dtype)


def _close(own: np.ndarray, true: np.ndarray) -> bool:
    """Whether two derivatives agree, where both are finite."""
    both = np.isfinite(own) & np.isfinite(true)
    scale = max(np.abs(true[both]).max(initial=0.0), np.abs(own[both]).max(initial=0.0))
    return bool((np.abs(own - true)[both] <= TOLERANCE * scale).all())
