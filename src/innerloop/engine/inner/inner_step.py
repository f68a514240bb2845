"""One inner step: the gradient of the support loss, and the rule's update."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import optax
from jaxtyping import Array, PyTree

from innerloop.engine.inner.mixed_mode import mixed_value_and_grad
from innerloop.engine.inner.safe_roots import with_safe_roots
from innerloop.engine.keys import MaybeKey
from innerloop.engine.losses.loss import Extras
from innerloop.engine.optimizer import update_of
from innerloop.errors import explained


class Carry(NamedTuple):
    """What changes from step to step: the adapted parameters, the rule's state and the model state."""

    fast: PyTree
    rule_state: PyTree
    state: PyTree = None


class StepInputs(NamedTuple):
    """What the loss of one step depends on, besides the parameters and the inputs shared by all steps.

    Attributes:
        state: the model state.
        key: the key of the step.
        batch: the step's own data (None: the whole support set).
    """

    state: PyTree = None
    key: MaybeKey = None
    batch: PyTree = None


RULE_HINT = "give a rule whose `update(grads, state, params)` takes and returns trees like the parameters"
RULE_ERRORS = (AttributeError, LookupError, TypeError, ValueError)

StepLoss = Callable[[PyTree, StepInputs, PyTree], tuple[Array, Extras]]
"""`loss(fast, now, rest)`, where `rest` is everything that is the same at every step."""

Step = Callable[[Carry, StepInputs], tuple[Carry, tuple[Array, PyTree]]]
"""`step(carry, now) -> (carry, (loss, aux))`."""


def inner_step(
    loss: StepLoss,
    rule: optax.GradientTransformation,
    rest: PyTree,
    *,
    mixed: bool = False,
    checkpoint_update: bool = False,
    constant_gradient: bool = False,
    differentiate_state: bool = False,
) -> Step:
    """The function that takes one step.

    Args:
        loss: the support loss.
        rule: the inner optimiser.
        rest: the third argument of the loss.
        mixed: whether the gradient is differentiated in mixed mode.
        checkpoint_update: whether the rule's update is computed again when the step is differentiated. Adam has several
            intermediate values for each parameter, and storing them takes longer than computing them again.
        constant_gradient: whether the gradient is held constant when the step is differentiated.
        differentiate_state: whether derivatives flow through the new model state.
    """
    gradient = _value_and_grad(loss, mixed)
    update = update_of(rule)

    def step(carry: Carry, now: StepInputs) -> tuple[Carry, tuple[Array, PyTree]]:
        (value, extras), grads = gradient(carry.fast, now, rest)
        given = jax.lax.stop_gradient((grads, value)) if constant_gradient else (grads, value)
        again = lambda fast: loss(fast, now, rest)[0]  # for rules with a line search
        again = _held_constant(loss, now, rest) if constant_gradient else again
        moved = with_safe_roots(
            lambda grads, state, fast, value: update(
                grads, state, fast, value=value, grad=grads, value_fn=again
            )
        )
        moved = jax.checkpoint(moved, prevent_cse=False) if checkpoint_update else moved
        # So that the loss is not blamed.
        with explained("InnerLoop", "its rule cannot take a step", hint=RULE_HINT, errors=RULE_ERRORS):
            updates, rule_state = moved(given[0], carry.rule_state, carry.fast, given[1])
        state = extras.state if differentiate_state else jax.lax.stop_gradient(extras.state)
        return Carry(optax.apply_updates(carry.fast, updates), rule_state, state), (value, extras.aux)

    return step


def _held_constant(loss: StepLoss, now: StepInputs, rest: PyTree) -> Callable[[PyTree], Array]:
    """The loss as a function of the parameters, for a rule whose step is differentiated as if it were a constant."""
    now, rest = jax.lax.stop_gradient((now, rest))  # as the step's own gradient
    return lambda fast: loss(jax.tree.map(_held_outside, fast), now, rest)[0]


@jax.custom_jvp
def _held_outside(x: Array) -> Array:
    """The identity. A derivative that the rule itself takes is the loss's own; its derivative in turn is zero."""
    return x


@_held_outside.defjvp
def _held_outside_jvp(primals: tuple[Array], tangents: tuple[Array]) -> tuple[Array, Array]:
    return jax.lax.stop_gradient(primals[0]), tangents[0]  # the rule's derivative is held constant


def _value_and_grad(loss: StepLoss, mixed: bool) -> Callable:
    """A function for the value and gradient of the loss with respect to its first argument."""
    if not mixed:
        return jax.value_and_grad(loss, has_aux=True)
    gradient = mixed_value_and_grad(lambda fast, others: loss(fast, *others))
    return lambda fast, now, rest: gradient(fast, (now, rest))
