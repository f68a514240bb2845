r"""DiCE: a surrogate whose derivatives of every order are correct.

    box(x) = exp(x - stop(x)),    S_t = sum_{i <= t} log pi_theta(a_i | s_i)
    L(theta) = - sum_t w_t A_t [ box(S_t) - box(S_{t-1}) ]

box is 1, and its derivatives are those of the probability of the actions so far. With advantages in place of rewards
("loaded" DiCE, as here), any baseline may be subtracted without bias at any order. If A_t is the return from t on, the
sum equals the original one, of rewards times box(S_t), up to a constant.

Foerster et al. 2018, "DiCE: The Infinitely Differentiable Monte Carlo Estimator", arXiv 1802.05098; Farquhar,
Whiteson and Foerster 2019, "Loaded DiCE", equation 9, arXiv 1909.10549.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from innerloop.engine.types import Params
from innerloop.rl.rollout import steps_since_start
from innerloop.rl.sample_processor import Samples


def dice(policy: Params, samples: Samples) -> Float[Array, ""]:
    """The loss of a policy.

    Args:
        policy: any pytree that maps observations to a distribution over actions.
        samples: samples of one task.
    """
    log_probs = policy(samples.observations).log_prob(samples.actions)
    so_far = jnp.cumsum(log_probs, -1)
    if samples.ends is not None:  # the sum restarts at every trajectory of a lane
        begun = jnp.arange(so_far.shape[-1]) - steps_since_start(samples.ends)
        so_far = so_far - jnp.take_along_axis(so_far - log_probs, begun, -1)
    box = _magic_box(so_far) - _magic_box(so_far - log_probs)
    return -jnp.sum(samples.weights * samples.advantages * box)


def _magic_box(x: Array) -> Array:
    # `stop_gradient` is part of the operator's definition: its value is 1, its derivatives are those of exp at 0.
    return jnp.exp(x - jax.lax.stop_gradient(x))
