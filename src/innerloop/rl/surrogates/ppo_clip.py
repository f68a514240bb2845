r"""The clipped surrogate of PPO, the outer objective of ProMP.

    L(theta) = - sum_t w_t min( rho_t A_t, clip(rho_t, 1 - epsilon, 1 + epsilon) A_t ),  rho_t = pi_theta / pi_old

Schulman et al. 2017, equation 7, arXiv 1707.06347; Rothfuss et al. 2019, equation 11, arXiv 1810.06784.
"""

from collections.abc import Callable

import jax.numpy as jnp
from jaxtyping import Array, Float

from innerloop.config.bounds import POSITIVE, check_number
from innerloop.engine.types import Params
from innerloop.rl.sample_processor import Samples


def clipped(epsilon: float) -> Callable[[Params, Samples], Float[Array, ""]]:
    """The surrogate that clips the ratio to 1 +- `epsilon`: `surrogate(policy, samples) -> scalar`.

    Raises:
        InnerloopError: if `epsilon` is not above 0.
    """
    check_number("clipped", epsilon, POSITIVE)

    def surrogate(policy: Params, samples: Samples) -> Float[Array, ""]:
        log_probs = policy(samples.observations).log_prob(samples.actions)
        rho = jnp.exp(log_probs - samples.log_probs)
        kept = jnp.clip(rho, 1 - epsilon, 1 + epsilon)
        worth = jnp.minimum(rho * samples.advantages, kept * samples.advantages)
        return -jnp.sum(samples.weights * worth)

    return surrogate
