"""Turn some equations of a traced program into a function."""

from collections.abc import Callable, Sequence

from jax.extend import core as jex
from jaxtyping import ArrayLike


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
