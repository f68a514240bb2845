r"""Meta-SGD: MAML that also learns a step size for every parameter, or for every group of parameters.

    theta_{i+1} = theta_i - alpha * grad L(theta_i; support)   (elementwise)
    g = grad_{theta, alpha} L(theta_k; query)

The step sizes are the same at every inner step and may become negative. With `inner.last=0` the support gradients are
held constant, and alpha still has its first-order gradient: minus the sum over steps of the support gradient times the
query gradient.

Li, Zhou, Chen and Li 2017, "Meta-SGD: Learning to Learn Quickly for Few-Shot Learning", arXiv 1707.09835. The
paper draws the initial step sizes from U(0.005, 0.1); here they are an argument.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import jax
import jax.numpy as jnp
import optax

from innerloop.algorithms.maml import MAML
from innerloop.config.bounds import NOT_NEGATIVE, check_argument
from innerloop.engine.inner.inner_loop import InnerLoop
from innerloop.engine.learned_rates import WithRates, group_of, model_of, rates_of, scale_by_rates
from innerloop.engine.pytree import partition, paths
from innerloop.engine.trainable import check_trainable
from innerloop.engine.types import LossFn, Params
from innerloop.errors import InnerloopError


@dataclass(frozen=True)
class MetaSGD(MAML):
    """The algorithm that `meta_sgd` returns."""

    rates: float | tuple[tuple[str, float], ...] = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        for group, rate in self.rates if isinstance(self.rates, tuple) else [("", self.rates)]:
            check_argument("meta_sgd", f"rates[{group!r}]" if group else "rates", rate, NOT_NEGATIVE)

    def init(self, params: Params) -> WithRates:
        """The parameters, and a step size for each of their adapted elements, or for each group of them."""
        check_trainable(params, "meta_sgd")
        fast, _ = partition(params, self.inner.select)
        rates = self.rates
        if not isinstance(rates, tuple):
            return WithRates(params, jax.tree.map(lambda w: jnp.full_like(w, rates), fast))
        _check_groups(paths(fast), self.groups)
        dtype = jnp.result_type(*jax.tree.leaves(fast))
        return WithRates(params, {group: jnp.asarray(rate, dtype) for group, rate in rates})

    @property
    def groups(self) -> tuple[str, ...]:
        """The path prefixes or patterns of the groups with a step size each; empty without groups."""
        return tuple(group for group, _ in self.rates) if isinstance(self.rates, tuple) else ()

    def initialization(self, meta_params: WithRates) -> Params:
        """The parameters without the step sizes."""
        return model_of(meta_params, "meta_sgd")

    def inner_for(self, meta_params: WithRates) -> InnerLoop:
        """The inner loop with the learned step sizes."""
        rates = rates_of(meta_params, self.inner.select, self.groups)
        return replace(self.inner, rule=optax.chain(self.inner.rule, scale_by_rates(rates)))


def _check_groups(adapted: list[str], groups: Sequence[str]) -> None:
    """Raise InnerloopError unless every adapted parameter is in a group, and every group is the first of one."""
    found = [group_of(path, groups) for path in adapted]
    if None in found:
        wrong = f"`rates` gives no step size to the adapted parameter `{adapted[found.index(None)]}`"
        raise InnerloopError("meta_sgd", wrong, got=", ".join(groups), hint='add "**" for all that is left')
    for group in groups:
        if group not in found:
            wrong = f"{group!r} of `rates` matches no adapted parameter that is not in an earlier group"
            raise InnerloopError("meta_sgd", wrong, hint="choose among: " + ", ".join(adapted))


def meta_sgd(
    loss_fn: LossFn,
    inner: InnerLoop,
    *,
    rates: float | Mapping[str, float] = 1.0,
    outer_loss_fn: LossFn | None = None,
) -> MetaSGD:
    """Meta-SGD (Li et al. 2017).

    Args:
        loss_fn: the loss, a mean over examples.
        inner: the inner loop; its rule's updates are multiplied by the step sizes (the paper's is `optax.sgd(1.0)`).
        rates: the initial step size of every element of a parameter (1: MAML at first); or, for one learned step size
            per group, a mapping from path prefixes or patterns to initial step sizes, such as `{"head": 0.1, "**":
            0.01}`. A parameter belongs to the first group that includes it.
        outer_loss_fn: the loss on the query set (None: `loss_fn`).

    Raises:
        InnerloopError: if a rate is not a number, or is negative. (`init` raises it if an adapted parameter
            is in no group, or a group has none.)
    """
    initial = tuple(rates.items()) if isinstance(rates, Mapping) else rates
    return MetaSGD(loss_fn, inner, outer_loss_fn, initial)
