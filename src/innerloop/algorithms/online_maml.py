r"""Online MAML: each item of a stream is predicted with the parameters adapted to the items before it.

    theta_{i+1} = theta_i + rule(grad L(theta_i; item_i)),   g = grad_theta (1/k) sum_{i=0}^{k-1} L(theta_i; item_i)

The outer loss is the mean of the losses *before* each step, on the very item that the step then learns from: the loss
of a model that is trained while it is tested. The stream is the support set; the query set is not used. With one item,
this is joint training. A `Loss` with `differentiate_state` carries a state along the stream, for example the keys and
values of attention.

Tandon et al. 2025, "End-to-End Test-Time Training for Long Context", arXiv 2512.23675. With an initialisation not
trained for this purpose, it is dynamic evaluation (Krause et al. 2018, arXiv 1709.07432).
"""

from dataclasses import replace

import jax
import jax.numpy as jnp
from jaxtyping import Array, PyTree

from innerloop.algorithms.maml import MAML
from innerloop.engine.inner import InnerLoop, check_inner
from innerloop.engine.keys import MaybeKey
from innerloop.engine.types import LossFn, Params, Task
from innerloop.errors import InnerloopError


class OnlineMAML(MAML):
    """The algorithm that `online_maml` returns."""

    reads_query = False

    def loss_through_inner_loop(
        self, meta_params: Params, task: Task, *, key: MaybeKey = None
    ) -> tuple[Array, tuple[Array, PyTree]]:
        """The mean loss along the stream; the losses, and the means of the auxiliary outputs."""
        found = self.trajectory(meta_params, task.support, key=key)
        return jnp.mean(found.losses), (found.losses, jax.tree.map(lambda x: x.mean(0), found.aux))


def online_maml(loss_fn: LossFn, inner: InnerLoop) -> OnlineMAML:
    """Online MAML: `adapt` learns from a whole stream, and `trajectory(...).losses` are the losses along it.

    Args:
        loss_fn: the loss of one item of the stream, a mean over examples.
        inner: the inner loop, with one step per item; its `stream` is set to True.

    Raises:
        InnerloopError: the inner loop has no steps.
    """
    check_inner(inner, "online_maml")
    if inner.steps < 1:
        raise InnerloopError("online_maml", "the inner loop must take at least one step", got=inner.steps)
    return OnlineMAML(loss_fn, replace(inner, stream=True))
