"""Distributions over actions, with any leading axes: the outputs of policies."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray

HALF_LOG_TWO_PI = 0.9189385332046727


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
    """A distribution over a finite number of actions."""

    logits: Float[Array, "*batch actions"]

    def sample(self, key: PRNGKeyArray) -> Int[Array, "*batch"]:
        """Draw the index of one action from each distribution."""
        return jax.random.categorical(key, self.logits)

    def log_prob(self, action: Int[Array, "*batch"]) -> Float[Array, "*batch"]:
        """Log probability of each action."""
        # A product with the one-hot vector has a cheap second derivative; indexing has not.
        chosen = jax.nn.one_hot(action, self.logits.shape[-1], dtype=self.logits.dtype)
        return jnp.sum(chosen * jax.nn.log_softmax(self.logits), -1)

    def kl(self, other: "Categorical") -> Float[Array, "*batch"]:
        """KL(self || other)."""
        own, others = jax.nn.log_softmax(self.logits), jax.nn.log_softmax(other.logits)
        return jnp.sum(jnp.exp(own) * (own - others), -1)


Distribution = Normal | Categorical
