"""Trajectories made ready for a surrogate: judged by advantages and weighted."""

from dataclasses import dataclass
from typing import Literal, NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float

from innerloop.rl.advantages import discounted, generalised, normalised
from innerloop.rl.baseline import linear_baseline
from innerloop.rl.distributions import Distribution
from innerloop.rl.rollout import Trajectories


class Samples(NamedTuple):
    """What a surrogate reads; the leading axis is `trajectories`, so that it is a batch of examples for the engine.

    `answers` and `log_probs` are those of the policy that acted. `weights` are zero after the end, and over the
    trajectories of one rollout they add up to 1: a mean over the steps that were taken. `ends`: as of `Trajectories`.
    """

    observations: Float[Array, "trajectories steps observation"]
    answers: Distribution
    actions: Array
    log_probs: Float[Array, "trajectories steps"]
    advantages: Float[Array, "trajectories steps"]
    weights: Float[Array, "trajectories steps"]
    ends: Float[Array, "trajectories steps"] | None = None


@dataclass(frozen=True)
class SampleProcessor:
    """How trajectories of one task become samples.

    discount, gae: gamma and lambda. baseline: the linear one, or none. normalise: advantages of mean 0 and deviation
    1 within the task. No factor gamma^t weighs later steps less, as in all published code.
    """

    discount: float = 0.99
    gae: float = 1.0
    baseline: Literal["linear", "none"] = "linear"
    normalise: bool = True

    def __call__(self, t: Trajectories) -> Samples:
        """Judge the trajectories of one rollout; they share one baseline. What broke counts up to there."""
        t = t.whole()
        returns = discounted(t.rewards, self.discount, t.ends)
        values = jnp.zeros_like(returns)
        if self.baseline == "linear":
            values = linear_baseline(t.observations, returns, t.mask, ends=t.ends)
        advantages = generalised(t.rewards, values, t.mask, discount=self.discount, gae=self.gae, ends=t.ends)
        if self.normalise:
            advantages = normalised(advantages, t.mask)
        return Samples(
            t.observations,
            t.answers,
            t.actions,
            t.answers.log_prob(t.actions),
            advantages,
            t.mask / jnp.sum(t.mask),
            t.ends,
        )
