"""Step sizes as meta-parameters, which `meta_sgd` and `maml_plus_plus` learn along with the initialisation."""

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, PyTree

from innerloop.engine.types import Params
from innerloop.errors import InnerloopError


class WithRates(eqx.Module):
    """A model and its step sizes.

    Attributes:
        model: the initialisation.
        rates: one leaf per leaf of the model: an array of its shape, or one number per inner step, `[steps]`.
    """

    model: Params
    rates: PyTree[Array]


def model_of(meta_params: WithRates, who: str) -> Params:
    """The model without its step sizes. Raises InnerloopError, on behalf of `who`, if there are none."""
    if not isinstance(meta_params, WithRates):
        got, hint = type(meta_params).__name__, "pass the result of the algorithm's `init(params)`"
        raise InnerloopError(who, "needs meta-parameters with step sizes", got=got, hint=hint)
    return meta_params.model


def scale_by_rates(rates: PyTree[Array]) -> optax.GradientTransformation:
    """Multiply every update elementwise by step sizes of its shape."""
    scale = lambda updates, params: jax.tree.map(jnp.multiply, updates, rates)
    return optax.stateless(scale)  # pyright: ignore[reportArgumentType]


def scale_by_step_rates(rates: PyTree[Float[Array, " steps"]]) -> optax.GradientTransformation:
    """Multiply every update by the step size of the inner step; steps beyond the last rate reuse it."""

    def update(updates: PyTree, step: Array, params: Params = None) -> tuple[PyTree, Array]:
        scaled = jax.tree.map(lambda u, r: u * r[jnp.minimum(step, len(r) - 1)], updates, rates)
        return scaled, step + 1

    start = lambda params: jnp.zeros((), jnp.int32)
    return optax.GradientTransformation(start, update)  # pyright: ignore[reportArgumentType]
