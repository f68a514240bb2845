"""The initial state of any optimiser, and one step of any outer optimiser, including those that need the objective."""

from collections.abc import Callable, Iterator
from inspect import getclosurevars, isfunction
from numbers import Real

import optax
from jaxtyping import Array, Float, PyTree

from innerloop.engine.types import Params
from innerloop.errors import InnerloopError, explained


def check_optimizer(optimizer: object, who: str) -> None:
    """Raise InnerloopError, on behalf of `who`, unless this is an Optax optimiser."""
    if not (hasattr(optimizer, "init") and hasattr(optimizer, "update")):
        hint = "pass optax.adam(1e-3), for example"
        raise InnerloopError(who, "`optimizer` must be an Optax optimiser", got=optimizer, hint=hint)


def initial_moments(init: Callable[[Params], optax.OptState], params: Params, who: str) -> optax.OptState:
    """The initial state of an optimiser. Raises InnerloopError, on behalf of `who`, unless it fits the parameters."""
    hint = "labels, as for `optax.multi_transform`, must be given by a function: Optax would call a labelled model"
    usual = (AttributeError, KeyError, TypeError, ValueError)
    wrong = "its optimiser does not fit the parameters"
    with explained(who, wrong, hint=hint if callable(params) else "", errors=usual):
        return init(params)


BEFORE_SCALE = (
    "trace",
    "scale_by_adam",
    "scale_by_rms",
    "scale_by_rss",
    "add_decayed_weights",
    "clip",
    "clip_by_global_norm",
)
"""Transformations of Optax whose results `optax.scale` multiplies by the step size."""


def step_size_of(rule: optax.GradientTransformation) -> float | None:
    """The constant step size of gradient descent, Adam and the like; None for a schedule and for all other rules.

    Optax has no attribute for it, so it is read from what `optax.scale` closes over. Nothing else may scale the step.
    """
    *before, (last, size) = [("", None), *_transformations(rule.update)]
    known = last == "scale" and all(name in ("", *BEFORE_SCALE) for name, _ in before)
    return -float(size) if known and isinstance(size, Real) and size < 0 else None  # not for steps uphill


def _transformations(update: Callable[..., object]) -> Iterator[tuple[str, object]]:
    """The name of every transformation in a rule, in order, with the factor of `optax.scale`; `?` if it is unknown."""
    known = isfunction(update) and update.__module__.startswith("optax.")
    name = update.__qualname__.partition(".")[0] if known else "?"
    within = getclosurevars(update).nonlocals if known else {}
    if name == "chain":
        for part in within["update_fns"]:
            yield from _transformations(part)
    elif name == "with_extra_args_support":
        yield from _transformations(within["tx"].update)
    elif name != "identity":
        yield name, within.get("step_size")


def update_of(rule: optax.GradientTransformation) -> Callable[..., tuple[PyTree, PyTree]]:
    """Its `update(grads, state, params, **extra)`, which drops the extra arguments of a rule that takes none.

    Optax's own type for rules with extra arguments does not tell: `optax.contrib.sam` has it, and takes other ones.
    """
    general = optax.with_extra_args_support(rule).update

    def update(grads: PyTree, state: PyTree, params: Params, **extra: PyTree) -> tuple[PyTree, PyTree]:
        try:
            return general(grads, state, params, **extra)
        except TypeError as error:
            if not any(f"unexpected keyword argument '{name}'" in str(error) for name in extra):
                raise
            return rule.update(grads, state, params)

    return update


def apply_optimizer(
    optimizer: optax.GradientTransformation,
    grads: Params,
    opt_state: PyTree,
    params: Params,
    value: Float[Array, ""],
    value_fn: Callable[[Params], Float[Array, ""]],
) -> tuple[Params, PyTree]:
    """Take one step.

    Args:
        optimizer: any Optax optimiser.
        grads: the gradient.
        opt_state: the optimiser's state.
        params: the parameters, which weight decay also uses.
        value: the objective, for rules that monitor it, such as `optax.contrib.reduce_on_plateau`.
        value_fn: the objective at other parameters, for rules with a line search, such as `optax.lbfgs`.

    Returns:
        The new parameters, and the optimiser's new state.
    """
    extra = {"value": value, "grad": grads, "value_fn": value_fn}
    updates, opt_state = update_of(optimizer)(grads, opt_state, params, **extra)
    return optax.apply_updates(params, updates), opt_state
