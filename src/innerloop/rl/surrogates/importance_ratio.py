r"""The importance-weighted surrogate: its first derivative is correct at the policy that sampled.

    L(theta) = - sum_t w_t A_t pi_theta(a_t | s_t) / pi_old(a_t | s_t)

With a single action (a bandit), the first derivative is correct at any theta, and so is the second. Over several steps
it is approximate away from pi_old, since the states and advantages stay those of pi_old, and the second derivative
omits the products of scores at different times: lower variance than DiCE, at the cost of some bias (the "low variance
curvature" of Rothfuss et al. 2019, "ProMP", section 5, arXiv 1810.06784). It is the outer objective of TRPO (Schulman
et al. 2015, equation 14, arXiv 1502.05477).
"""

import jax.numpy as jnp
from jaxtyping import Array, Float

from innerloop.engine.types import Params
from innerloop.rl.sample_processor import Samples


def ratio(policy: Params, samples: Samples) -> Float[Array, ""]:
    """The loss of a policy.

    Args:
        policy: any pytree that maps observations to a distribution over actions.
        samples: samples of one task.
    """
    log_probs = policy(samples.observations).log_prob(samples.actions)
    return -jnp.sum(samples.weights * samples.advantages * jnp.exp(log_probs - samples.log_probs))
