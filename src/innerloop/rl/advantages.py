r"""Returns, generalised advantages, and their normalisation, for trajectories that may have ended early.

    R_t = r_t + gamma R_{t+1}
    delta_t = r_t + gamma V(s_{t+1}) - V(s_t),     A_t = delta_t + gamma lambda A_{t+1}

with V = 0 after the end. Schulman et al. 2016, "High-Dimensional Continuous Control Using Generalized Advantage
Estimation", equations 11 to 16, arXiv 1506.02438. With lambda = 1, A_t = R_t - V(s_t).
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


def discounted(
    rewards: Float[Array, "trajectories steps"], discount: float
) -> Float[Array, "trajectories steps"]:
    """What is still to come from each step on: R_t. Rewards after the end must be zero."""

    def back(later: Array, reward: Array) -> tuple[Array, Array]:
        total = reward + discount * later
        return total, total

    _, totals = jax.lax.scan(back, jnp.zeros_like(rewards[:, 0]), rewards.T, reverse=True)
    return totals.T


def generalised(
    rewards: Float[Array, "trajectories steps"],
    values: Float[Array, "trajectories steps"],
    mask: Float[Array, "trajectories steps"],
    *,
    discount: float,
    gae: float,
) -> Float[Array, "trajectories steps"]:
    """Generalised advantages A_t; zero after the end. `gae` is lambda."""
    values = values * mask
    following = jnp.concatenate([values[:, 1:], jnp.zeros_like(values[:, :1])], 1)
    return discounted((rewards + discount * following - values) * mask, discount * gae)


def normalised(
    advantages: Float[Array, "trajectories steps"], mask: Float[Array, "trajectories steps"]
) -> Float[Array, "trajectories steps"]:
    """Mean 0 and deviation 1 over all steps of one task that were taken; zero after the end."""
    count = jnp.sum(mask)
    mean = jnp.sum(advantages * mask) / count
    variance = jnp.sum(jnp.square(advantages - mean) * mask) / count
    return (advantages - mean) / (jnp.sqrt(variance) + 1e-8) * mask
