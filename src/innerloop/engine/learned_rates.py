"""Step sizes among the meta-parameters: what `meta_sgd` and `maml_plus_plus` learn beside the initialisation."""

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, PyTree

from innerloop.engine.types import Params


class WithRates(eqx.Module):
    """A model and its step sizes.

    Attributes:
        model: the initialisation.
        rates: one leaf for each of the model's: an array of its shape, or one number for every inner step, `[steps]`.
    """

    model: Params
    rates: PyTree[Array]


def scale_by_rates(rates: PyTree[Array]) -> optax.GradientTransformation:
    """Multiply every update elementwise by its step size, of the shape of its parameter."""
    scale = lambda updates, params: jax.tree.map(jnp.multiply, updates, rates)
    return optax.stateless(scale)  # pyright: ignore[reportArgumentType]


def scale_by_step_rates(rates: PyTree[Float[Array, " steps"]]) -> optax.GradientTransformation:
    """Multiply every update by the step size of the inner step; steps after the last rate take the last."""

    def update(updates: PyTree, step: Array, params: Params = None) -> tuple[PyTree, Array]:
        scaled = jax.tree.map(lambda u, r: u * r[jnp.minimum(step, len(r) - 1)], updates, rates)
        return scaled, step + 1

    start = lambda params: jnp.zeros((), jnp.int32)
    return optax.GradientTransformation(start, update)  # pyright: ignore[reportArgumentType]
