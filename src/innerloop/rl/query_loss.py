"""What outer steps that leave the acting policy need of the loss on query trajectories: importance weights."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from innerloop.engine.algorithm import Algorithm
from innerloop.engine.jaxprs import dependent
from innerloop.errors import InnerloopError
from innerloop.rl.distributions import Categorical
from innerloop.rl.sample_processor import Samples


class Coin(NamedTuple):
    """A policy over two actions that ignores its observations."""

    logit: Float[Array, ""]

    def __call__(self, observations: Float[Array, "*batch observation"]) -> Categorical:
        """The same distribution for every observation."""
        return Categorical(jnp.broadcast_to(jnp.stack([self.logit, 0.0]), (*observations.shape[:-1], 2)))


def check_query_loss(algorithm: Algorithm, who: str, surrogate: str) -> None:
    """Raise InnerloopError, on behalf of `who`, unless the query loss has importance weights, as `surrogate` has.

    Away from the policy that acted, the derivatives of `dice` and `log_probability` are those of neither policy, and
    the value of `dice` is the same for all policies, so that no line search can improve it.
    """
    if not algorithm.reads_query:
        wrong = "needs a loss on query trajectories, which this algorithm does not have"
        raise InnerloopError(who, wrong, got=type(algorithm).__name__, hint="use gradient_update")
    if not _reads_the_acting_policy(algorithm):
        wrong = "needs a loss with importance weights on the query trajectories"
        got = getattr(algorithm.outer_loss_fn or algorithm.loss_fn, "__name__", None)
        hint = f"give the algorithm `outer_loss_fn=surrogates.{surrogate}`"
        raise InnerloopError(who, wrong, got=got, hint=hint)


def _reads_the_acting_policy(algorithm: Algorithm) -> bool:
    """Whether the query loss depends on what the acting policy's distributions or log probabilities were.

    True for a loss of one's own that cannot be traced with a policy that is only a function of observations.
    """

    def loss(log_probs: Array, logits: Array) -> Array:
        shape = log_probs.shape
        seen, actions, weights = jnp.zeros((*shape, 1)), jnp.zeros(shape, int), jnp.ones(shape)
        samples = Samples(seen, Categorical(logits), actions, log_probs, weights, weights)
        return algorithm.query_loss(Coin(jnp.zeros(())), samples)

    try:
        traced = jax.make_jaxpr(loss)(jnp.zeros((2, 2)), jnp.zeros((2, 2, 2)))
    except Exception:
        return True
    return any(dependent(traced.jaxpr, [True, True])[:1])  # the loss comes first, before other outputs
