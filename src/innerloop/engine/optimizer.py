"""The initial state of any optimiser, and one step of any outer optimiser, including those that need the objective."""

from collections.abc import Callable, Iterator
from contextlib import suppress
from inspect import isfunction
from numbers import Real

import optax
from jaxtyping import Array, Float, PyTree

from innerloop.engine.types import Params
from innerloop.errors import InnerloopError, first_line


def initial_moments(init: Callable[[Params], optax.OptState], params: Params, who: str) -> optax.OptState:
    """The initial state of an optimiser. Raises InnerloopError, on behalf of `who`, unless it fits the parameters."""
    try:
        return init(params)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        if isinstance(error, InnerloopError):
            raise
        wrong = f"its optimiser does not fit the parameters ({first_line(error)})"
        hint = "labels, as for `optax.multi_transform`, must be given by a function: Optax would call a labelled model"
        raise InnerloopError(who, wrong, hint=hint if callable(params) else "") from error


def step_size_of(rule: optax.GradientTransformation) -> float | None:
    """The constant step size of an optimiser; None if it has a schedule or several, or keeps it elsewhere.

    Optax has no attribute for it, so it is read from what `rule.update` closes over.
    """
    functions, found = [rule.update], []
    for function in functions:  # grows
        for name, value in _closed_over(function):
            if name in ("step_size", "step_size_fn", "learning_rate"):
                found.append(abs(float(value)) if isinstance(value, Real) else None)
            parts = value if isinstance(value, tuple) else (value,)
            functions += [part for part in parts if isfunction(part) and part not in functions]
    return found[0] if len(found) == 1 else None


def _closed_over(function: Callable[..., object]) -> Iterator[tuple[str, object]]:
    """The variables that a function closes over, with their values."""
    code, cells = getattr(function, "__code__", None), getattr(function, "__closure__", None)
    for name, cell in zip(code.co_freevars if code else (), cells or (), strict=False):
        with suppress(ValueError):  # the variable has no value yet
            yield name, cell.cell_contents


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
    rule = optax.with_extra_args_support(optimizer)
    updates, opt_state = rule.update(grads, opt_state, params, value=value, grad=grads, value_fn=value_fn)
    return optax.apply_updates(params, updates), opt_state
