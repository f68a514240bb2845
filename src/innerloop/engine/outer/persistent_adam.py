r"""Adam without momentum whose second moments are meta-parameters, so that they persist from task to task.

    theta = (w, v):   v <- beta2 v + (1 - beta2) g^2,   w <- w - alpha g / (sqrt(v) + eps)

Reptile's published code keeps v from one task to the next, and starts from it at test time, so every weight has its own
learned step size. As part of theta, v is moved by the outer step just like w, and the meta-gradient of a task remains a
function of only theta and the task.

Kingma and Ba 2015, "Adam", algorithm 1 with beta1 = 0, arXiv 1412.6980; Nichol, Achiam and Schulman 2018, section 6.1.
Left out: the bias correction. v starts at `FIRST`, above the squares of typical gradients, so the first steps are short
steps of gradient descent.
"""

from dataclasses import replace

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jaxtyping import PyTree

from innerloop.engine.inner.inner_loop import InnerLoop
from innerloop.engine.losses.loss import restrict_loss
from innerloop.engine.pytree import Except, Selection, subtract
from innerloop.engine.types import LossFn, Params
from innerloop.errors import InnerloopError

FIRST = 1e-3


class WithMoments(eqx.Module):
    """A model w, and the second moment v of each of its parameters."""

    model: Params
    moments: Params


class PersistentAdam(optax.GradientTransformation):
    """An inner rule for `WithMoments`. Given one, Reptile adds the moments to its meta-parameters."""


def with_moments(model: Params) -> WithMoments:
    """A model with its initial second moments."""
    return WithMoments(model, jax.tree.map(lambda w: jnp.full_like(w, FIRST), model))


def of_model(params: WithMoments) -> Params:
    """The model without its moments. Raises InnerloopError if there are none."""
    _check_moments(params)
    return params.model


def _check_moments(params: WithMoments) -> None:
    """Raise InnerloopError unless parameters have moments."""
    if not isinstance(params, WithMoments):
        wrong = "needs parameters with their second moments"
        hint = "use it in reptile only and outside optax.chain, and pass the result of the algorithm's `init(params)`"
        raise InnerloopError("persistent_adam", wrong, got=type(params).__name__, hint=hint)


def on_model(loss_fn: LossFn, inner: InnerLoop) -> tuple[LossFn, InnerLoop]:
    """Lift a loss and an inner loop of a model to `WithMoments`. Frozen weights keep their moments."""
    return restrict_loss(loss_fn, of_model), replace(inner, select=_with_their_moments(inner.select))


def _with_their_moments(selection: Selection) -> Selection:
    """Turn a selection of the model's parameters into one of these parameters and their moments."""
    if selection is None:
        return None
    if isinstance(selection, Except):
        return Except(_with_their_moments(selection.selection))
    if callable(selection):
        return lambda path: selection(path.split("/", 1)[1])
    names = (selection,) if isinstance(selection, str) else selection
    return tuple(f"{part}/{name}" for part in ("model", "moments") for name in names)


def check_outer_optimizer(optimizer: optax.GradientTransformation, params: PyTree) -> None:
    """Raise InnerloopError unless an outer step leaves second moments between their old values and the task's.

    Other optimizers, such as Adam or momentum, overshoot, and a moment can become negative.
    """
    grads = jax.tree.map(lambda v: jnp.full_like(v, 1e-9), params)
    updates, state = optimizer.update(grads, optimizer.init(params), params)
    after, _ = optimizer.update(jax.tree.map(jnp.zeros_like, params), state, params)
    within = lambda g, u, later: jnp.all((u <= 0) & (-u <= g) & (later == 0))
    if not all(map(bool, jax.tree.leaves(jax.tree.map(within, grads, updates, after)))):
        hint = "use optax.sgd with a step size of at most 1, without momentum"
        raise InnerloopError(
            "persistent_adam", "the outer optimizer would make second moments negative", hint=hint
        )


def persistent_adam(learning_rate: float, *, beta2: float = 0.999, eps: float = 1e-8) -> PersistentAdam:
    """Adam whose second moments are meta-parameters; for Reptile only.

    Args:
        learning_rate: alpha.
        beta2: the decay of the second moments.
        eps: added to the square root of v.
    """

    def update(
        grads: WithMoments, state: optax.OptState, params: WithMoments
    ) -> tuple[WithMoments, optax.OptState]:
        _check_moments(params)
        moment = lambda g, v: beta2 * v + (1 - beta2) * jnp.square(g)
        moments = jax.tree.map(moment, grads.model, params.moments)
        step = lambda g, v: -learning_rate * g / (jnp.sqrt(v) + eps)
        steps = jax.tree.map(step, grads.model, moments)
        return WithMoments(steps, subtract(moments, params.moments)), state

    return PersistentAdam(lambda params: optax.EmptyState(), update)  # pyright: ignore
