r"""Adam without momentum whose second moments belong to the initialisation, so that tasks hand them on.

    theta = (w, v):   v <- beta2 v + (1 - beta2) g^2,   w <- w - alpha g / (sqrt(v) + eps)

Reptile's published code keeps v from one task to the next, and begins with it at test: every weight has a step size of
its own, learned along with it. Being part of theta, v is moved by the outer step as w is, towards what the tasks made
of it, and a task's gradient remains a function of theta and the task alone.

Kingma and Ba 2015, "Adam", algorithm 1 with beta1 = 0, arXiv 1412.6980; Nichol, Achiam and Schulman 2018, section 6.1.
Left out: the correction for where v begins. It begins at `FIRST`, above the squares of usual gradients, so that the
first steps are short ones of gradient descent.
"""

from dataclasses import replace
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import optax

from innerloop.engine.inner import InnerLoop
from innerloop.engine.pytree import chosen, subtract
from innerloop.engine.types import LossFn, Params

FIRST = 1e-3


class WithMoments(eqx.Module):
    """A model, w, and of each of its parameters the second moment, v."""

    model: Any
    moments: Any


class PersistentAdam(optax.GradientTransformation):
    """A rule for `WithMoments`: Reptile makes the moments a part of its meta-parameters where it finds one."""


def with_moments(model: Params) -> WithMoments:
    """A model and where its second moments begin."""
    return WithMoments(model, jax.tree.map(lambda w: jnp.full_like(w, FIRST), model))


def of_model(params: WithMoments) -> Params:
    """The model without its moments."""
    return params.model


def on_model(loss_fn: LossFn, inner: InnerLoop) -> tuple[LossFn, InnerLoop]:
    """A loss and an inner loop of the model alone, for `WithMoments`. Frozen weights keep their moments."""
    select = inner.select
    moves = lambda path: chosen(select, path.removeprefix("model/").removeprefix("moments/"))
    inner = inner if select is None else replace(inner, select=moves)
    return lambda params, batch: loss_fn(params.model, batch), inner


def persistent_adam(learning_rate: float, *, beta2: float = 0.999, eps: float = 1e-8) -> PersistentAdam:
    """The rule: stateless, since the moments are among the parameters."""

    def update(grads: WithMoments, state: Any, params: WithMoments) -> tuple[WithMoments, Any]:
        moment = lambda g, v: beta2 * v + (1 - beta2) * jnp.square(g)
        moments = jax.tree.map(moment, grads.model, params.moments)
        step = lambda g, v: -learning_rate * g / (jnp.sqrt(v) + eps)
        steps = jax.tree.map(step, grads.model, moments)
        return WithMoments(steps, subtract(moments, params.moments)), state

    return PersistentAdam(lambda params: optax.EmptyState(), update)  # pyright: ignore
