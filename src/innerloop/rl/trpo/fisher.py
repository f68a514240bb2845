r"""The mean KL divergence of adapted policies, and its Hessian times a vector.

    D(theta) = mean over tasks of mean over steps of KL( pi_{U(theta_old)} || pi_{U(theta)} ),   U = the inner loop

At theta_old the gradient of the KL divergence is zero, so the second derivatives of U and of the network drop out of
its Hessian, which leaves exactly

    F v = mean over tasks of  J_U^T J_f^T M J_f J_U v

with J_f the Jacobian of the policy's outputs (mean and deviation, or logits) and M the Hessian of the KL divergence
with respect to them. The map is linearised once; a product then costs one forward and one backward pass.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from innerloop.engine.types import Params, Task
from innerloop.rl.distributions import Distribution
from innerloop.rl.sample_processor import Samples

Adapt = Callable[[Params, PyTree], Params]
"""`adapt(params, support) -> adapted`: an algorithm's adaptation, or a substitute for it in an outer step."""

Product = Callable[[Params], Params]
"""`v -> F v`."""


def mean_kl(old: Distribution, new: Distribution, samples: Samples) -> Float[Array, ""]:
    """Mean KL(old || new) over the steps of one task."""
    return jnp.sum(samples.weights * old.kl(new))  # pyright: ignore[reportArgumentType]


def fisher(adapt: Adapt, params: Params, tasks: Task) -> Product:
    """The product with the Fisher matrix, by automatic differentiation.

    Args:
        adapt: `adapt(params, support)`.
        params: theta_old.
        tasks: samples of many tasks.

    Returns:
        `v -> F v`, a mean over these tasks.
    """

    def outputs(params: Params) -> Distribution:
        one = lambda task: adapt(params, task.support)(task.query.observations)
        # All tasks at once: a scan would store its linearisation, and read it for every product.
        return jax.vmap(one)(tasks)

    old, push = jax.linearize(outputs, params)
    pull = jax.linear_transpose(push, params)
    count = jax.tree.leaves(tasks)[0].shape[0]

    def total(new: Distribution) -> Array:
        return jnp.sum(jax.vmap(mean_kl)(old, new, tasks.query)) / count

    def product(v: Params) -> Params:
        _, curved = jax.jvp(jax.grad(total), (old,), (push(v),))
        return pull(curved)[0]

    return product
