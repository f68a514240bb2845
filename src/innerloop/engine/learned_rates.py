"""Step sizes as meta-parameters, which `meta_sgd` and `maml_plus_plus` learn along with the initialisation."""

from collections.abc import Sequence

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, PyTree

from innerloop.engine.pytree import Selection, by_path, is_selected, partition, paths
from innerloop.engine.types import Params
from innerloop.errors import InnerloopError


class WithRates(eqx.Module):
    """A model and its step sizes.

    Attributes:
        model: the initialisation.
        rates: one leaf per adapted leaf of the model: an array of its shape, or one number per inner step, `[steps]`;
            or a dictionary with a number for each group of leaves.
    """

    model: Params
    rates: PyTree[Array]


def model_of(meta_params: WithRates, who: str) -> Params:
    """The model without its step sizes. Raises InnerloopError, on behalf of `who`, if there are none."""
    if not isinstance(meta_params, WithRates):
        got, hint = type(meta_params).__name__, "pass the result of the algorithm's `init(params)`"
        raise InnerloopError(who, "needs meta-parameters with step sizes", got=got, hint=hint)
    return meta_params.model


def rates_of(meta_params: WithRates, select: Selection, groups: Sequence[str] = ()) -> PyTree[Array]:
    """The step size of every adapted leaf; with groups, that of the first one that its path belongs to.

    Raises:
        InnerloopError: if there is no step size for an adapted leaf.
    """
    fast, _ = partition(meta_params.model, select)
    known, found = by_path(meta_params.rates), []
    for path in paths(fast):
        name = group_of(path, groups) if groups else path
        if name is None or name not in known:
            hint = "call `init` of the algorithm that adapts it"
            raise InnerloopError("step sizes", f"the adapted parameter `{path}` has none", hint=hint)
        found.append(known[name])
    return jax.tree.structure(fast).unflatten(found)


def group_of(path: str, groups: Sequence[str]) -> str | None:
    """The first of the path prefixes or patterns that includes this path; None if none does."""
    return next((group for group in groups if is_selected(group, path)), None)


def scale_by_rates(rates: PyTree[Array]) -> optax.GradientTransformation:
    """Multiply every update by step sizes of its shape, or by one number."""
    scale = lambda updates, params: jax.tree.map(jnp.multiply, updates, rates)
    return optax.stateless(scale)  # pyright: ignore[reportArgumentType]


def scale_by_step_rates(rates: PyTree[Float[Array, " steps"]]) -> optax.GradientTransformation:
    """Multiply every update by the step size of the inner step; steps beyond the last rate reuse it."""

    def update(updates: PyTree, step: Array, params: Params = None) -> tuple[PyTree, Array]:
        scaled = jax.tree.map(lambda u, r: u * r[jnp.minimum(step, len(r) - 1)], updates, rates)
        return scaled, step + 1

    start = lambda params: jnp.zeros((), jnp.int32)
    return optax.GradientTransformation(start, update)  # pyright: ignore[reportArgumentType]
