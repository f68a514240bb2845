r"""The REINFORCE surrogate.

    L(theta) = - sum_t w_t A_t log pi_theta(a_t | s_t)

Its first derivative is the policy gradient. Its second derivative is not that of the expected return, since it ignores
that the trajectories depend on theta too, so a meta-gradient through it is biased. The published code of MAML uses it.

Williams 1992, "Simple statistical gradient-following algorithms for connectionist reinforcement learning".
"""

import jax.numpy as jnp
from jaxtyping import Array, Float

from innerloop.engine.types import Params
from innerloop.rl.sample_processor import Samples


def log_probability(policy: Params, samples: Samples) -> Float[Array, ""]:
    """The loss of a policy.

    Args:
        policy: any pytree that maps observations to a distribution over actions.
        samples: samples of one task.
    """
    log_probs = policy(samples.observations).log_prob(samples.actions)
    return -jnp.sum(samples.weights * samples.advantages * log_probs)
