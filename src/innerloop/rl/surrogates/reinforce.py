r"""The classical surrogate, REINFORCE.

    L(theta) = - sum_t w_t A_t log pi_theta(a_t | s_t)

Its first derivative is the policy gradient. Its second is not the derivative of the policy gradient: that the
trajectories too depend on theta is forgotten, so a meta-gradient through it is biased. It is what the published code
of MAML adapts by.

Williams 1992, "Simple statistical gradient-following algorithms for connectionist reinforcement learning".
"""

import jax.numpy as jnp
from jaxtyping import Array, Float

from innerloop.engine.types import Params
from innerloop.rl.sample_processor import Samples


def log_probability(policy: Params, samples: Samples) -> Float[Array, ""]:
    """The loss of `policy` on samples of one task."""
    log_probs = policy(samples.observations).log_prob(samples.actions)
    return -jnp.sum(samples.weights * samples.advantages * log_probs)
