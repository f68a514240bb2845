"""Policies: pytrees of parameters that answer observations with distributions over actions."""

from typing import ClassVar, Literal

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from innerloop.nn import MLP
from innerloop.rl.distributions import Categorical, Normal

LEAST_LOG_STD = -13.815510557964274
"""log 1e-6, the published code's least standard deviation."""


def _over_any_batch(network: MLP, observations: Float[Array, "*batch observation"]) -> Array:
    """The network's answers `[*batch, outputs]`; the network itself knows one axis of examples."""
    answers = network(observations.reshape(-1, observations.shape[-1]))
    return answers.reshape(*observations.shape[:-1], answers.shape[-1])


class GaussianPolicy(eqx.Module):
    """Normal actions: the mean from a network, a learnt standard deviation that no observation changes.

    MAML's policies (appendix A.2): hidden (100, 100), ReLU, standard deviation 1 at first and 1e-6 at least.
    """

    HEAD: ClassVar = ("mean/head", "log_std")
    """What ANIL adapts: all that makes the distribution from the features."""
    mean: MLP
    log_std: Float[Array, " action"]

    def __init__(
        self,
        observation_size: int,
        action_size: int,
        *,
        hidden: tuple[int, ...] = (100, 100),
        activation: Literal["relu", "tanh"] = "relu",
        key: PRNGKeyArray,
    ):
        """Glorot weights, biases and log deviations of zero."""
        self.mean = MLP(observation_size, action_size, hidden=hidden, activation=activation, key=key)
        self.log_std = jnp.zeros(action_size)

    def __call__(self, observations: Float[Array, "*batch observation"]) -> Normal:
        """Distributions over actions."""
        mean = _over_any_batch(self.mean, observations)
        return Normal(mean, jnp.broadcast_to(jnp.maximum(self.log_std, LEAST_LOG_STD), mean.shape))


class CategoricalPolicy(eqx.Module):
    """One of so many actions, by the softmax of a network; `hidden=()` is a table for indicator observations."""

    HEAD: ClassVar = ("logits/head",)
    """What ANIL adapts."""
    logits: MLP

    def __init__(
        self,
        observation_size: int,
        action_size: int,
        *,
        hidden: tuple[int, ...] = (100, 100),
        activation: Literal["relu", "tanh"] = "relu",
        key: PRNGKeyArray,
    ):
        """Glorot weights, biases of zero."""
        self.logits = MLP(observation_size, action_size, hidden=hidden, activation=activation, key=key)

    def __call__(self, observations: Float[Array, "*batch observation"]) -> Categorical:
        """Distributions over actions."""
        return Categorical(_over_any_batch(self.logits, observations))
