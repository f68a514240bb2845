r"""First-order MAML: the gradient of the query loss *at* the adapted parameters.

    g = grad L(theta_k; query)

It is MAML with every (I - alpha H_i) replaced by I: the second derivatives are left out, so no backward pass runs
through the inner loop.

Finn, Abbeel and Levine 2017, section 5.2, arXiv 1703.03400; Nichol, Achiam and Schulman 2018, arXiv 1803.02999.
"""

from typing import Any

import jax

from innerloop.algorithms.algorithm import Algorithm, MetaInfo
from innerloop.inner import InnerLoop, unroll
from innerloop.task import LossFn, Params, Task


def fomaml(loss_fn: LossFn, inner: InnerLoop, *, outer_loss_fn: LossFn | None = None) -> Algorithm:
    """First-order MAML on `loss_fn` (the query may have a loss of its own, `outer_loss_fn`)."""
    query_loss = loss_fn if outer_loss_fn is None else outer_loss_fn

    def adapt(params: Params, support: Any) -> Params:
        return unroll(loss_fn, inner, params, support).adapted

    def meta_grad(params: Params, task: Task) -> tuple[Params, MetaInfo]:
        trajectory = unroll(loss_fn, inner, params, task.support)
        loss, grads = jax.value_and_grad(query_loss)(trajectory.adapted, task.query)
        return grads, MetaInfo(loss, trajectory.losses)

    return Algorithm(adapt, meta_grad)
