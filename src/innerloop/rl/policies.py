"""Policies: pytrees of parameters that map observations to distributions over actions."""

import math
from typing import ClassVar, Literal

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from innerloop.nn import MLP
from innerloop.rl.distributions import Categorical, Normal

MIN_LOG_STD = math.log(1e-6)
"""The logarithm of the smallest standard deviation in the published code."""


def _apply_to_batch(network: MLP, observations: Float[Array, "*batch observation"]) -> Array:
    """The network's outputs for observations with any number of leading axes."""
    outputs = network(observations.reshape(-1, observations.shape[-1]))
    return outputs.reshape(*observations.shape[:-1], outputs.shape[-1])


class GaussianPolicy(eqx.Module):
    """A normal distribution: the mean comes from a network, the standard deviation is learnt but state-independent.

    The defaults are those of MAML (Finn, Abbeel and Levine 2017, appendix A.2): hidden layers (100, 100), ReLU, and a
    standard deviation that starts at 1 and is at least 1e-6.
    """

    HEAD: ClassVar = ("mean/head", "log_std")
    """The part that ANIL adapts: everything between the features and the distribution."""
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
        """Glorot initialisation; biases and log standard deviations start at zero."""
        self.mean = MLP(observation_size, action_size, hidden=hidden, activation=activation, key=key)
        self.log_std = jnp.zeros(action_size)

    def __call__(self, observations: Float[Array, "*batch observation"]) -> Normal:
        """Distributions over actions for a batch of observations."""
        mean = _apply_to_batch(self.mean, observations)
        return Normal(mean, jnp.broadcast_to(jnp.maximum(self.log_std, MIN_LOG_STD), mean.shape))


class CategoricalPolicy(eqx.Module):
    """A softmax over discrete actions; with `hidden=()` and one-hot observations it is a table."""

    HEAD: ClassVar = ("logits/head",)
    """The part that ANIL adapts."""
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
        """Glorot initialisation; biases start at zero."""
        self.logits = MLP(observation_size, action_size, hidden=hidden, activation=activation, key=key)

    def __call__(self, observations: Float[Array, "*batch observation"]) -> Categorical:
        """Distributions over actions for a batch of observations."""
        return Categorical(_apply_to_batch(self.logits, observations))
