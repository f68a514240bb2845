"""Distributions over actions, with any leading axes: the outputs of policies."""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray

PerStep = Float[Array, "trajectories steps"]
"""One number for every step of some trajectories."""

HALF_LOG_TWO_PI = 0.5 * math.log(2 * math.pi)


class Normal(NamedTuple):
    """Independent normal distributions, one per component of the action."""

    mean: Float[Array, "*batch action"]
    log_std: Float[Array, "*batch action"]

    def sample(self, key: PRNGKeyArray) -> Float[Array, "*batch action"]:
        """Draw one action from each distribution."""
        noise = jax.random.normal(key, self.mean.shape, self.mean.dtype)
        return self.mean + jnp.exp(self.log_std) * noise

    def log_prob(self, action: Float[Array, "*batch action"]) -> Float[Array, "*batch"]:
        """Log density of each action."""
        z = (action - self.mean) * jnp.exp(-self.log_std)
        return -jnp.sum(0.5 * jnp.square(z) + self.log_std + HALF_LOG_TWO_PI, -1)

    def kl(self, other: "Normal") -> Float[Array, "*batch"]:
        """KL(self || other)."""
        ratio = jnp.exp(2 * (self.log_std - other.log_std))
        moved = jnp.square((self.mean - other.mean) * jnp.exp(-other.log_std))
        return jnp.sum(other.log_std - self.log_std + 0.5 * (ratio + moved - 1), -1)


class Categorical(NamedTuple):
    """A distribution over a finite set of actions.

    A logit of -inf rules an action out.
    """

    logits: Float[Array, "*batch actions"]

    def sample(self, key: PRNGKeyArray) -> Int[Array, "*batch"]:
        """Draw the index of one action from each distribution."""
        return jax.random.categorical(key, self.logits)

    def log_prob(self, action: Int[Array, "*batch"]) -> Float[Array, "*batch"]:
        """Log probability of each action."""
        # Selecting by comparison has a cheap second derivative; indexing does not. A product would turn -inf into NaN.
        chosen = action[..., None] == jnp.arange(self.logits.shape[-1])
        return jnp.sum(jnp.where(chosen, jax.nn.log_softmax(self.logits), 0), -1)

    def kl(self, other: "Categorical") -> Float[Array, "*batch"]:
        """KL(self || other)."""
        own, others = jax.nn.log_softmax(self.logits), jax.nn.log_softmax(other.logits)
        chance = jnp.exp(own)
        possible = chance > 0  # 0 log 0 is 0, even if both logits are -inf
        gap = jnp.where(possible, own, 0) - jnp.where(possible, others, 0)
        return jnp.sum(chance * gap, -1)


Distribution = Normal | Categorical
