"""From trajectories to the samples that a surrogate loss takes: advantages and weights."""

from dataclasses import dataclass
from typing import Annotated, Literal, NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float

from innerloop.config.bounds import FRACTION, check_bounds
from innerloop.engine.pytree import shapes_only
from innerloop.errors import check_choice
from innerloop.rl.advantages import discounted_returns, generalised_advantages, normalised_advantages
from innerloop.rl.baseline import linear_baseline
from innerloop.rl.distributions import Distribution, PerStep
from innerloop.rl.rollout import Trajectories


class Samples(NamedTuple):
    """The input of a surrogate loss: a batch whose examples are trajectories.

    Attributes:
        observations: what the policy observed before each step.
        action_dist: the acting policy's distributions over actions.
        actions: the actions taken, `[trajectories, steps, ...]`.
        log_probs: their log probabilities under the acting policy.
        advantages: A_t.
        weights: zero after the end; they sum to 1 over the trajectories of one rollout.
        ends: as in `Trajectories`.
    """

    observations: Float[Array, "trajectories steps observation"]
    action_dist: Distribution
    actions: Array
    log_probs: PerStep
    advantages: PerStep
    weights: PerStep
    ends: PerStep | None = None

    __repr__ = shapes_only


@dataclass(frozen=True)
class SampleProcessor:
    """Turns the trajectories of one task into samples.

    As in all published code, later steps are not weighted by gamma^t.

    Attributes:
        discount: gamma.
        gae_lambda: lambda of the generalised advantages.
        baseline: the linear feature baseline, or none.
        normalize: whether to scale advantages to mean 0 and standard deviation 1 within the task.

    Raises:
        InnerloopError: if the discount or lambda is outside [0, 1], or the baseline is unknown.
    """

    discount: Annotated[float, FRACTION] = 0.99
    gae_lambda: Annotated[float, FRACTION] = 1.0
    baseline: Literal["linear", "none"] = "linear"
    normalize: bool = True

    def __post_init__(self) -> None:
        check_bounds(self, "SampleProcessor.{}".format)
        check_choice("SampleProcessor", "baseline", self.baseline, ("linear", "none"))

    def __call__(self, t: Trajectories) -> Samples:
        """The samples of one rollout, which share a baseline. Broken trajectories are cut before the failure."""
        t = t.whole()
        returns = discounted_returns(t.rewards, self.discount, t.ends)
        values = jnp.zeros_like(returns)
        if self.baseline == "linear":
            values = linear_baseline(t.observations, returns, t.mask, ends=t.ends)
        advantages = generalised_advantages(
            t.rewards, values, t.mask, discount=self.discount, gae_lambda=self.gae_lambda, ends=t.ends
        )
        if self.normalize:
            advantages = normalised_advantages(advantages, t.mask, returns)
        return Samples(
            t.observations,
            t.action_dist,
            t.actions,
            t.action_dist.log_prob(t.actions),
            advantages,
            t.mask / jnp.maximum(jnp.sum(t.mask), 1),  # no steps are left if every trajectory broke at once
            t.ends,
        )
