"""Losses that do more than `loss_fn(params, batch) -> scalar`: randomness, model state, auxiliary outputs.

A loss with model state (running statistics, a recurrent state, a window of keys and values) is evaluated at `Adapted`,
the pair of parameters and state. Every task starts from the same initial state, and no state passes between tasks, so
the meta-gradient of a task remains a function of the meta-parameters, the task and its key.
"""

from collections.abc import Callable
from dataclasses import KW_ONLY, dataclass, replace
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from innerloop.engine import keys
from innerloop.engine.keys import MaybeKey
from innerloop.engine.losses.loss_errors import loss_errors
from innerloop.engine.model_state import check_state, fresh_state, in_structure_of
from innerloop.engine.pytree import shapes_only
from innerloop.engine.types import LossFn, Params
from innerloop.errors import InnerloopError, check_flag
from innerloop.io.text import counted


class Adapted(NamedTuple):
    """What the inner loop returns for a loss with model state.

    Attributes:
        params: the adapted parameters.
        state: the model state after the last inner step.
    """

    params: Params
    state: PyTree

    __repr__ = shapes_only


class Extras(NamedTuple):
    """What a loss returns besides its value.

    Attributes:
        state: the new model state (None if it has none).
        aux: auxiliary outputs, a pytree of arrays (None if it has none).
    """

    state: PyTree = None
    aux: PyTree = None


@dataclass(frozen=True)
class Loss:
    """A loss that takes a key, carries model state, or has auxiliary outputs; use it wherever a loss is expected.

    `fn` is called as `fn(params, batch)`, with the keyword `key` if it is random and the keyword `state` if it has
    state. It returns the loss, or a tuple of the loss, the new state (if it has state) and the auxiliary outputs (if
    it has any). `innerloop.mean_squared_error(apply, predict)` and the other built-in losses are such functions too.

    Attributes:
        fn: the function.
        random: whether it takes a key (dropout, for example). Every inner step and the query set get their own key,
            derived from the task's key and the step number.
        state: the model state that every task starts from (None: no state), a pytree of arrays.
        aux: whether it returns auxiliary outputs, such as `{"accuracy": ...}`; they are logged.
        differentiate_state: whether the meta-gradient flows through the state from step to step: no for running
            statistics, yes for a recurrent state.

    Raises:
        InnerloopError: if `fn` is not a function, or another attribute but `state` is not a boolean.
    """

    fn: Callable[..., PyTree]
    _: KW_ONLY
    random: bool = False
    state: PyTree = None
    aux: bool = False
    differentiate_state: bool = False

    def __post_init__(self) -> None:
        check_function(self.fn, "Loss", "fn", "fn(params, batch)")
        for name in ("random", "aux", "differentiate_state"):
            check_flag("Loss", name, getattr(self, name))

    @property
    def stateful(self) -> bool:
        """Whether there is model state."""
        return self.state is not None

    def __call__(self, params: Params | Adapted, batch: PyTree, *, key: MaybeKey = None) -> Float[Array, ""]:
        """The value alone, for parameters or, with state, for `Adapted`."""
        params, state = params if isinstance(params, Adapted) else (params, self.state)
        return self.evaluate(params, batch, key, state)[0]

    def evaluate(self, params: Params, batch: PyTree, key: MaybeKey, state: PyTree) -> tuple[PyTree, Extras]:
        """The value, the new state and the auxiliary outputs.

        Raises:
            InnerloopError: if a random loss has no key, or the number of outputs is not the declared one.
        """
        check_key(self, key)
        keywords = {"key": key} if self.random else {}
        keywords |= {"state": fresh_state(state)} if self.stateful else {}
        found = self.fn(params, batch, **keywords)
        wanted = 1 + self.stateful + self.aux
        if wanted == 1:
            return found, Extras()
        if not isinstance(found, tuple) or len(found) != wanted:
            got = counted(len(found), "output") if isinstance(found, tuple) else type(found).__name__
            names = "loss, " + ", ".join(["new state"] * self.stateful + ["auxiliary outputs"] * self.aux)
            raise InnerloopError("Loss", f"`fn` must return ({names})", got=got)
        state = in_structure_of(state, found[1]) if self.stateful else None
        return found[0], Extras(state, found[-1] if self.aux else None)


def check_function(function: object, who: str, name: str, form: str) -> None:
    """Raise InnerloopError, on behalf of `who`, unless the value of `name` is a function of this form."""
    if not callable(function):
        got = type(function).__name__
        raise InnerloopError(who, f"`{name}` must be a function", got=got, hint=f"pass `{form}`")


def restrict_loss(loss_fn: LossFn, part: Callable[[Params], Params]) -> LossFn:
    """A loss of a larger parameter tree, from which `part` extracts what `loss_fn` takes."""
    if isinstance(loss_fn, Loss):
        fn = loss_fn.fn
        return replace(loss_fn, fn=lambda params, batch, **keywords: fn(part(params), batch, **keywords))
    return lambda params, batch: loss_fn(part(params), batch)


def is_random(loss_fn: LossFn) -> bool:
    """Whether a loss takes a key."""
    return isinstance(loss_fn, Loss) and loss_fn.random


def initial_state(loss_fn: LossFn) -> PyTree:
    """The model state that a task starts from; None for a loss without state."""
    return fresh_state(loss_fn.state) if isinstance(loss_fn, Loss) else None


def fold_key(key: MaybeKey, number: int | Array) -> MaybeKey:
    """A separate key for each number; None without a key."""
    return None if key is None else jax.random.fold_in(key, number)


def check_key(loss_fn: LossFn, key: MaybeKey) -> None:
    """Raise InnerloopError for a random loss if the key is missing or is not a key."""
    if is_random(loss_fn):
        if key is None:
            raise InnerloopError("Loss", "this loss is random and needs a key", hint="pass key=")
        keys.check_key(key, "Loss")


def with_state(params: Params, loss_fn: LossFn) -> Params | Adapted:
    """Parameters before any inner step, with the initial model state if the loss has one."""
    state = initial_state(loss_fn)
    return params if state is None else Adapted(params, state)


def params_of(adapted: Params | Adapted) -> Params:
    """The parameters without model state."""
    return adapted.params if isinstance(adapted, Adapted) else adapted


def with_params(adapted: Params | Adapted, params: Params) -> Params | Adapted:
    """The same model state, if any, with other parameters."""
    return adapted._replace(params=params) if isinstance(adapted, Adapted) else params


def evaluate_loss(
    loss_fn: LossFn, params: Params, batch: PyTree, key: MaybeKey = None, state: PyTree = None
) -> tuple[PyTree, Extras]:
    """The value of any loss, and what else it returns. Raises InnerloopError as in `Loss.evaluate`."""
    if isinstance(loss_fn, Loss):
        return loss_fn.evaluate(params, batch, key, state)
    return loss_fn(params, batch), Extras()


def check_loss(loss_fn: LossFn, params: Params, batch: PyTree, key: MaybeKey = None) -> None:
    """Raise InnerloopError unless the loss is a float scalar and its new state matches the old one."""
    check_key(loss_fn, key)
    state = initial_state(loss_fn)
    with loss_errors(batch, params=params):
        shape, extras = jax.eval_shape(
            lambda *given: evaluate_loss(loss_fn, *given), params, batch, key, state
        )
    check_scalar(shape, "loss_fn")
    check_state(state, extras.state)


def check_scalar(loss: PyTree, who: str) -> None:
    """Raise InnerloopError, on behalf of `who`, unless a loss, or its shape, is that of one float."""
    if not hasattr(loss, "shape") or loss.shape != () or not jnp.issubdtype(loss.dtype, jnp.floating):
        got = f"shape {loss.shape} of {loss.dtype}" if hasattr(loss, "shape") else type(loss).__name__
        raise InnerloopError(who, "the loss must be one float", got=got, hint=_remedy(loss))


def _remedy(returned: PyTree) -> str:
    """What to do about a loss that returns something of this shape."""
    if not hasattr(returned, "shape"):
        return "return it" if returned is None else "use `Loss` to declare what else it returns"
    return (
        "take the mean over examples; use jax.vmap if these are several tasks"
        if returned.shape
        else "compute it from the parameters, which are floats"
    )
