"""The settings of reinforcement learning."""

from dataclasses import dataclass
from typing import Annotated, Literal

from innerloop.config.bounds import POSITIVE, POSITIVE_FRACTION, Bounds, Section


@dataclass(frozen=True)
class RLConfig(Section):
    """Reinforcement learning: sampling, advantages, and the outer step."""

    SECTION = "rl."

    trajectories: Annotated[int, Bounds(2, 1_000_000)] = 20
    """Trajectories for every inner step and for the query, in training."""
    test_trajectories: Annotated[int, Bounds(2, 1_000_000)] = 40
    """Trajectories for every inner step and for the query, at test."""
    test_restarts: bool = False
    """At test, when a trajectory ends before the horizon, start another one, up to the horizon."""
    horizon: Annotated[int, Bounds(1, 1_000_000)] = 100
    """Number of steps after which a trajectory is cut off."""
    reward: Literal["distance", "squared"] = "distance"
    """Reward of navigation: minus the distance (published code), or minus its square (the paper's text)."""
    discount: Annotated[float, POSITIVE_FRACTION] = 0.99
    """Discount factor gamma."""
    gae_lambda: Annotated[float, POSITIVE_FRACTION] = 1.0
    """Lambda of generalised advantage estimation (GAE); 1: returns minus the baseline."""
    baseline: Literal["linear", "none"] = "linear"
    """Baseline of the advantages."""
    surrogate: Literal["dice", "log_probability", "ratio"] = "dice"
    """Loss of the inner loop; only dice has the correct second derivative over several steps."""
    outer: Literal["trpo", "ppo", "gradient"] = "trpo"
    """Outer step: trust region (trpo), clipped objective (ppo), or the outer optimiser on the meta-gradient."""
    max_kl: Annotated[float, POSITIVE] = 0.01
    """TRPO: largest mean KL divergence between adapted policies before and after a step."""
    fisher_fraction: Annotated[float, POSITIVE_FRACTION] = 1.0
    """TRPO: fraction of the tasks used to estimate the curvature."""
    conjugate_gradients: Annotated[int, Bounds(1, 10_000)] = 10
    """TRPO: conjugate gradient iterations."""
    clip: Annotated[float, POSITIVE] = 0.2
    """PPO: clipping range of the probability ratio."""
    epochs: Annotated[int, Bounds(1, 10_000)] = 5
    """PPO: gradient steps on the same trajectories."""
    test_lr_decay: Annotated[float, Bounds(0, 1000)] = 0.5
    """Size of inner steps after the first at test, relative to the first."""
