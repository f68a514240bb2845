r"""Online MAML: each item of a stream is predicted with the parameters adapted to the items before it.

    theta_{i+1} = theta_i + rule(grad L(theta_i; item_i)),   g = grad_theta (1/k) sum_{i=0}^{k-1} L(theta_i; item_i)

The outer loss is the mean of the losses *before* each step, on the very item that the step then learns from: the loss
of a model that is trained while it is tested. The stream is the support set; the query set is not used. With one item,
this is joint training. A `Loss` with `differentiate_state` carries a state along the stream, for example the keys and
values of attention. With an outer loss of its own, the steps still descend L, and g is the gradient of the mean of the
outer losses at the same parameters, items and states.

Tandon et al. 2025, "End-to-End Test-Time Training for Long Context", arXiv 2512.23675. With an initialisation not
trained for this purpose, it is dynamic evaluation (Krause et al. 2018, arXiv 1709.07432).
"""

from dataclasses import replace

import jax
import jax.numpy as jnp
from jaxtyping import Array, PyTree

from innerloop.algorithms.maml import MAML
from innerloop.engine.algorithm import QUERY
from innerloop.engine.inner.inner_loop import InnerLoop, check_inner
from innerloop.engine.inner.unroll import Observe, Trajectory
from innerloop.engine.keys import MaybeKey
from innerloop.engine.losses.loss import Loss, check_scalar, evaluate_loss, fold_key, initial_state, is_random
from innerloop.engine.losses.loss_errors import loss_errors
from innerloop.engine.types import LossFn, Params, Task
from innerloop.errors import InnerloopError
from innerloop.io.text import counted


class OnlineMAML(MAML):
    """The algorithm that `online_maml` returns."""

    reads_query = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.inner.stream:
            hint = "use maml for a support set without an order"
            raise InnerloopError("online_maml", "`stream` must be True", got=self.inner.stream, hint=hint)

    def trajectory(
        self, meta_params: Params, support: PyTree, observe: Observe | None = None, *, key: MaybeKey = None
    ) -> Trajectory:
        """Run the inner loop along the whole stream of one task."""
        items = min((len(x) for x in jax.tree.leaves(support) if jnp.ndim(x)), default=0)
        steps = self.inner.steps
        if items > steps:
            wrong = f"{counted(steps, 'step')} would leave out the rest of the stream"
            hint = f"give InnerLoop(..., steps={items}), or a stream of {counted(steps, 'item')}"
            raise InnerloopError("online_maml", wrong, got=counted(items, "item"), hint=hint)
        return super().trajectory(meta_params, support, observe, key=key)

    def loss_through_inner_loop(
        self, meta_params: Params, task: Task, *, key: MaybeKey = None
    ) -> tuple[Array, tuple[Array, PyTree]]:
        """The mean loss along the stream; the losses, and the means of the auxiliary outputs."""
        outer = self.outer_loss_fn
        both = self if outer is None else replace(self, loss_fn=_with_outer(self.loss_fn, outer))
        found = both.trajectory(meta_params, task.support, key=key)
        losses, aux = (found.losses, found.aux) if outer is None else found.aux
        return jnp.mean(losses), (found.losses, jax.tree.map(lambda x: x.mean(0), aux))


def _with_outer(loss_fn: LossFn, outer: LossFn) -> Loss:
    """The loss, whose auxiliary outputs are the outer loss of the same item and that loss's own auxiliary outputs."""
    inner = loss_fn if isinstance(loss_fn, Loss) else Loss(loss_fn)

    def fn(params: Params, item: PyTree, *, key: MaybeKey = None, state: PyTree = None) -> tuple:
        value, extras = inner.evaluate(params, item, key, state)
        before = state if inner.stateful else initial_state(outer)
        with loss_errors(item, "outer_loss_fn"):
            found, more = evaluate_loss(outer, params, item, fold_key(key, QUERY), before)
        check_scalar(found, "outer_loss_fn")
        return (value, *([extras.state] if inner.stateful else []), (found, more.aux))

    return replace(inner, fn=fn, random=inner.random or is_random(outer), aux=True)


def online_maml(loss_fn: LossFn, inner: InnerLoop, *, outer_loss_fn: LossFn | None = None) -> OnlineMAML:
    """Online MAML: `adapt` learns from a whole stream, and `trajectory(...).losses` are the losses along it.

    Args:
        loss_fn: the loss of one item of the stream, a mean over examples.
        inner: the inner loop, with one step per item; its `stream` is set to True.
        outer_loss_fn: the loss of each item before the step that learns from it, whose mean the meta-gradient descends
            (None: `loss_fn`). With model state, it reads the state that `loss_fn` has left behind before that item.

    Raises:
        InnerloopError: if the inner loop has no steps; or, when it is run, fewer steps than the stream has
            items.
    """
    check_inner(inner, "online_maml")
    if inner.steps < 1:
        raise InnerloopError("online_maml", "the inner loop must take at least one step", got=inner.steps)
    return OnlineMAML(loss_fn, replace(inner, stream=True), outer_loss_fn)
