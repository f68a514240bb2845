r"""Returns, generalised advantages, and their normalisation, for trajectories that may have ended early.

    R_t = r_t + gamma R_{t+1}
    delta_t = r_t + gamma V(s_{t+1}) - V(s_t),     A_t = delta_t + gamma lambda A_{t+1}

with R = V = A = 0 after the end. If a row holds several trajectories, `ends` is 1 at the last step of each.
Schulman et al. 2016, "High-Dimensional Continuous Control Using Generalized Advantage Estimation", equations 11 to 16,
arXiv 1506.02438. With lambda = 1, A_t = R_t - V(s_t).
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool

from innerloop.engine.inner.safe_roots import safe_sqrt
from innerloop.rl.distributions import PerStep

ROUNDING = 100
"""Advantages whose standard deviation is below this many `eps` of the size of the returns differ by rounding only.

Measured in float32 for rewards that the baseline explains away: 2 to 5 `eps`. Its errors of fit are 150 `eps` or more.
"""


def discounted_returns(rewards: PerStep, discount: float, ends: PerStep | None = None) -> PerStep:
    """Discounted returns R_t.

    Args:
        rewards: must be zero after the end of a trajectory.
        discount: gamma.
        ends: 1 at the last step of each trajectory (None: one trajectory per row).

    Returns:
        R_t at every step, `[trajectories, steps]`.
    """
    weights = jnp.full_like(rewards, discount) if ends is None else discount * (1 - ends)

    def back(later: Array, here: tuple[Array, Array]) -> tuple[Array, Array]:
        reward, weight = here
        total = reward + weight * later
        return total, total

    _, totals = jax.lax.scan(back, jnp.zeros_like(rewards[:, 0]), (rewards.T, weights.T), reverse=True)
    return totals.T


def generalised_advantages(
    rewards: PerStep,
    values: PerStep,
    mask: PerStep,
    *,
    discount: float,
    gae_lambda: float,
    ends: PerStep | None = None,
) -> PerStep:
    """Generalised advantages A_t.

    Args:
        rewards: must be zero after the end of a trajectory.
        values: the baseline V(s_t) at every step.
        mask: 1 for every step that was taken.
        discount: gamma.
        gae_lambda: lambda; 1 gives R_t - V(s_t).
        ends: 1 at the last step of each trajectory (None: one trajectory per row).

    Returns:
        A_t at every step, `[trajectories, steps]`; zero after the end.
    """
    values = values * mask
    following = jnp.concatenate([values[:, 1:], jnp.zeros_like(values[:, :1])], 1)
    following = following if ends is None else following * (1 - ends)
    return discounted_returns((rewards + discount * following - values) * mask, discount * gae_lambda, ends)


def normalised_advantages(advantages: PerStep, mask: PerStep, returns: PerStep | None = None) -> PerStep:
    """Advantages scaled to mean 0 and standard deviation 1 over all steps of one task; zero after the end.

    Equal advantages become zero, and so do those that differ by rounding only: scaled up, they would be noise of full
    size. An advantage is a difference of returns and fitted values, so its rounding errors are in proportion to the
    returns (a few `eps`, the resolution of the dtype), however small the advantage is.

    Args:
        advantages: A_t.
        mask: 1 for every step that was taken.
        returns: R_t, what the advantages were computed from (None: the advantages themselves).
    """
    count = jnp.maximum(jnp.sum(mask), 1)
    mean = jnp.sum(advantages * mask) / count
    variance = jnp.sum(jnp.square(advantages - mean) * mask) / count
    found = (advantages - mean) / (safe_sqrt(variance) + 1e-8) * mask
    size = jnp.sum(jnp.square(advantages if returns is None else returns) * mask) / count
    rounding = variance <= (ROUNDING * jnp.finfo(size.dtype).eps) ** 2 * size
    return jnp.where(_all_equal(advantages, mask) | rounding, 0, found)


def _all_equal(advantages: Array, mask: Array) -> Bool[Array, ""]:
    """Whether all advantages of steps that were taken are equal; exact, which a mean in float32 is not."""
    taken = mask > 0
    return jnp.max(advantages, where=taken, initial=-jnp.inf) <= jnp.min(
        advantages, where=taken, initial=jnp.inf
    )
