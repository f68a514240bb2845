r"""MAML++: MAML with a learned step size per tensor and inner step, and with query losses after every step.

    theta_{i+1} = theta_i - alpha_{tensor, i} grad L(theta_i; support)
    g = grad_{theta, alpha} sum_{i=1}^{k} w_i(t) L(theta_i; query)

During the first T updates, t = 0..T-1, the weights w shift from uniform to the last step: w_i = max(1 - t/T, 0.03) / k
for i < k, and w_k is what remains of 1. After that, w_k = 1 and the others are 0. Meta-gradients of the first
`first_order_updates` updates are first order.

Antoniou, Edwards and Storkey 2019, "How to train your MAML", section 4, arXiv 1810.09502, with the floor of the weights
from the authors' code. Left out: scales and shifts of batch normalisation for every inner step (ours normalises by the
batch's own statistics), the cosine schedule (use an Optax schedule outside), and the ensemble of the five best models.
"""

from dataclasses import dataclass, field, replace

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, PyTree

from innerloop.algorithms.maml import MAML
from innerloop.config.bounds import NOT_NEGATIVE, check_argument
from innerloop.engine.algorithm import MetaInfo
from innerloop.engine.inner.inner_loop import InnerLoop
from innerloop.engine.keys import MaybeKey
from innerloop.engine.learned_rates import WithRates, model_of, rates_of, scale_by_step_rates
from innerloop.engine.pytree import partition
from innerloop.engine.trainable import check_trainable
from innerloop.engine.types import LossFn, Params, Task
from innerloop.errors import check_count

FLOOR = 0.03
"""k times the minimum weight of each step before the last, while those steps are weighted."""


@dataclass(frozen=True)
class MAMLPlusPlus(MAML):
    """The algorithm that `maml_plus_plus` returns."""

    rates: float = 1.0
    multi_step_updates: int = 0
    first_order_updates: int = 0
    update: int | Array = field(default=2**31 - 1, repr=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_argument("maml_plus_plus", "rates", self.rates, NOT_NEGATIVE)
        check_count("maml_plus_plus", "multi_step_updates", self.multi_step_updates, 0)
        check_count("maml_plus_plus", "first_order_updates", self.first_order_updates, 0)

    def init(self, params: Params) -> WithRates:
        """The parameters, and a step size for each adapted tensor and inner step."""
        check_trainable(params, "maml_plus_plus")
        steps = max(self.inner.steps, 1)
        fast, _ = partition(params, self.inner.select)
        return WithRates(params, jax.tree.map(lambda w: jnp.full(steps, self.rates, w.dtype), fast))

    def initialization(self, meta_params: WithRates) -> Params:
        """The parameters without the step sizes."""
        return model_of(meta_params, "maml_plus_plus")

    def at(self, step: Array) -> "MAMLPlusPlus":
        """The algorithm at one update, which determines the weights of steps and the order of the derivative."""
        return replace(self, update=step)

    def inner_for(self, meta_params: WithRates) -> InnerLoop:
        """The inner loop with the learned step sizes."""
        rates = rates_of(meta_params, self.inner.select)
        return replace(self.inner, rule=optax.chain(self.inner.rule, scale_by_step_rates(rates)))

    def meta_grad(
        self, meta_params: WithRates, task: Task, *, key: MaybeKey = None
    ) -> tuple[WithRates, MetaInfo]:
        """The derivative of the weighted query losses through the inner loop."""
        exact = super().meta_grad
        if not self.first_order_updates:
            return exact(meta_params, task, key=key)
        cheap = replace(self, inner=replace(self.inner, last=0), first_order_updates=0)
        return jax.lax.cond(
            self.update < self.first_order_updates,
            lambda: cheap.meta_grad(meta_params, task, key=key),
            lambda: exact(meta_params, task, key=key),
        )

    def loss_through_inner_loop(
        self, meta_params: WithRates, task: Task, *, key: MaybeKey = None
    ) -> tuple[Array, tuple[Array, PyTree]]:
        """The weighted query losses; the inner losses, and the auxiliary outputs after the last step."""
        if not (self.multi_step_updates and self.inner.steps):
            return super().loss_through_inner_loop(meta_params, task, key=key)
        weights = jnp.insert(step_weights(self.inner.steps, self.update, self.multi_step_updates), 0, 0)
        query = lambda adapted: self.query(adapted, task.query, key=key)
        blank = lambda adapted: jax.tree.map(jnp.zeros_like, jax.eval_shape(query, adapted))
        observe = lambda adapted, i: jax.lax.cond(weights[i] > 0, query, blank, adapted)
        trajectory = self.trajectory(meta_params, task.support, observe, key=key)
        losses, aux = trajectory.observed
        total = jnp.sum(losses * weights.astype(losses.dtype))
        return total, (trajectory.losses, jax.tree.map(lambda x: x[-1], aux))


def step_weights(steps: int, update: int | Array, updates: int) -> Float[Array, " steps"]:
    """The weight of the query loss after each inner step, at one update of the outer loop.

    Args:
        steps: the number of inner steps, k.
        update: the number of the update, from 0.
        updates: the number of updates over which the weights shift to the last step, T.
    """
    falling = jnp.maximum(1 - update * (1 / updates), FLOOR)
    early = jnp.where(update < updates, falling, 0) / steps
    return jnp.full(steps, early).at[-1].set(1 - (steps - 1) * early)


def maml_plus_plus(
    loss_fn: LossFn,
    inner: InnerLoop,
    *,
    rates: float = 1.0,
    multi_step_updates: int = 0,
    first_order_updates: int = 0,
    outer_loss_fn: LossFn | None = None,
) -> MAMLPlusPlus:
    """MAML++ (Antoniou et al. 2019).

    Args:
        loss_fn: the loss, a mean over examples.
        inner: the inner loop; its rule's updates are multiplied by the step sizes (the paper's is `optax.sgd(1.0)`).
        rates: the initial step sizes (1: MAML at first).
        multi_step_updates: the number of updates whose outer loss also includes query losses before the last step
            (0: none).
        first_order_updates: the number of updates with first-order meta-gradients.
        outer_loss_fn: the loss on the query set (None: `loss_fn`).

    Raises:
        InnerloopError: if a number of updates or `rates` is negative, or not a number.
    """
    return MAMLPlusPlus(loss_fn, inner, outer_loss_fn, rates, multi_step_updates, first_order_updates)
