r"""MAML: the gradient of the query loss *through* the inner loop.

    g = grad_theta L(U_k(theta; support); query)
      = [ prod_{i=0}^{k-1} (I - alpha H_i) ] grad L(theta_k; query),   H_i = Hessian of L(.; support) at theta_i

for gradient descent inside, where the product runs from the first step on the left to the last on the right; for
any other rule the factors are the rule's own derivatives. Differentiating the scan gives all of them.

Finn, Abbeel and Levine 2017, "Model-Agnostic Meta-Learning for Fast Adaptation of Deep Networks", algorithm 1,
arXiv 1703.03400. The paper sums over tasks; `innerloop.outer` takes the mean.
"""

from typing import Any

import jax

from innerloop.algorithms.algorithm import Algorithm, MetaInfo
from innerloop.inner import InnerLoop, unroll
from innerloop.task import LossFn, Params, Task


def maml(loss_fn: LossFn, inner: InnerLoop, *, outer_loss_fn: LossFn | None = None) -> Algorithm:
    """MAML on `loss_fn` (the query may have a loss of its own, `outer_loss_fn`)."""
    query_loss = loss_fn if outer_loss_fn is None else outer_loss_fn

    def adapt(params: Params, support: Any) -> Params:
        return unroll(loss_fn, inner, params, support).adapted

    def meta_grad(params: Params, task: Task) -> tuple[Params, MetaInfo]:
        def outer_loss(params: Params):
            trajectory = unroll(loss_fn, inner, params, task.support)
            return query_loss(trajectory.adapted, task.query), trajectory.losses

        (loss, inner_losses), grads = jax.value_and_grad(outer_loss, has_aux=True)(params)
        return grads, MetaInfo(loss, inner_losses)

    return Algorithm(adapt, meta_grad)
