r"""Meta-SGD: MAML that also learns a step size for every parameter.

    theta_{i+1} = theta_i - alpha * grad L(theta_i; support)   (elementwise)
    g = grad_{theta, alpha} L(theta_k; query)

The step sizes are the same at every inner step and may become negative. With `inner.last=0` the support gradients are
held constant, and alpha still has its first-order gradient: minus the sum over steps of the support gradient times the
query gradient.

Li, Zhou, Chen and Li 2017, "Meta-SGD: Learning to Learn Quickly for Few-Shot Learning", arXiv 1707.09835. The
paper draws the initial step sizes from U(0.005, 0.1); here they are an argument.
"""

from dataclasses import dataclass, replace

import jax
import jax.numpy as jnp
import optax

from innerloop.algorithms.maml import MAML
from innerloop.config.bounds import NOT_NEGATIVE, check_argument
from innerloop.engine.inner import InnerLoop
from innerloop.engine.learned_rates import WithRates, model_of, scale_by_rates
from innerloop.engine.pytree import partition
from innerloop.engine.types import LossFn, Params


@dataclass(frozen=True)
class MetaSGD(MAML):
    """The algorithm that `meta_sgd` returns."""

    rates: float = 0.01

    def init(self, params: Params) -> WithRates:
        """The parameters, and a step size for each of their elements."""
        return WithRates(params, jax.tree.map(lambda w: jnp.full_like(w, self.rates), params))

    def initialisation(self, meta_params: WithRates) -> Params:
        """The parameters without the step sizes."""
        return model_of(meta_params, "meta_sgd")

    def inner_for(self, meta_params: WithRates) -> InnerLoop:
        """The inner loop with the learned step sizes."""
        rates, _ = partition(meta_params.rates, self.inner.select)
        return replace(self.inner, rule=optax.chain(self.inner.rule, scale_by_rates(rates)))


def meta_sgd(
    loss_fn: LossFn, inner: InnerLoop, *, rates: float = 0.01, outer_loss_fn: LossFn | None = None
) -> MetaSGD:
    """Meta-SGD (Li et al. 2017).

    Args:
        loss_fn: the loss, a mean over examples.
        inner: the inner loop; its rule's updates are multiplied by the step sizes (`optax.sgd(1.0)`: the paper's rule).
        rates: the initial step sizes.
        outer_loss_fn: the loss on the query set (None: `loss_fn`).

    Raises:
        InnerloopError: `rates` is not a number, or is negative.
    """
    check_argument("meta_sgd", "rates", rates, NOT_NEGATIVE)
    return MetaSGD(loss_fn, inner, outer_loss_fn, rates)
