r"""DiCE: a surrogate whose derivatives of every order are right.

    box(x) = exp(x - stop(x)),    S_t = sum_{i <= t} log pi_theta(a_i | s_i)
    L(theta) = - sum_t w_t A_t [ box(S_t) - box(S_{t-1}) ]

box is 1, and differentiates as the probability of the actions so far. Written with advantages in place of rewards,
as here ("loaded" DiCE), any baseline may be subtracted without bias at any order; with A_t the return from t on, the
sum is the original one of rewards times box(S_t), up to a constant.

Foerster et al. 2018, "DiCE: The Infinitely Differentiable Monte Carlo Estimator", arXiv 1802.05098; Farquhar,
Whiteson and Foerster 2019, "Loaded DiCE", equation 9, arXiv 1909.10549.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from innerloop.engine.types import Params
from innerloop.rl.rollout import ages
from innerloop.rl.sample_processor import Samples


def dice(policy: Params, samples: Samples) -> Float[Array, ""]:
    """The loss of `policy` on samples of one task."""
    log_probs = policy(samples.observations).log_prob(samples.actions)
    so_far = jnp.cumsum(log_probs, -1)
    if samples.ends is not None:  # the sum begins anew with every trajectory of a lane
        begun = jnp.arange(so_far.shape[-1]) - ages(samples.ends)
        so_far = so_far - jnp.take_along_axis(so_far - log_probs, begun, -1)
    box = _magic_box(so_far) - _magic_box(so_far - log_probs)
    return -jnp.sum(samples.weights * samples.advantages * box)


def _magic_box(x: Array) -> Array:
    """1, with the derivatives of exp(x) / exp(x's value)."""
    # The value is cut out by definition: the operator is 1 and only its derivatives are wanted.
    return jnp.exp(x - jax.lax.stop_gradient(x))
