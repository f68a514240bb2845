r"""MAML: the gradient of the query loss *through* the inner loop.

    g = grad_theta L(U_k(theta; support); query)
      = [ prod_{i=0}^{k-1} (I - alpha H_i) ] grad L(theta_k; query),   H_i = Hessian of L(.; support) at theta_i

if the inner rule is gradient descent; the product runs from the first step on the left to the last on the right. For
any other rule the factors are that rule's derivatives. Differentiating the scan gives all of them.

Finn, Abbeel and Levine 2017, "Model-Agnostic Meta-Learning for Fast Adaptation of Deep Networks", algorithm 1,
arXiv 1703.03400. The paper sums over tasks; `innerloop.engine.outer.outer_loop` takes the mean.
"""

import jax
from jaxtyping import Array, Float, PyTree

from innerloop.engine.algorithm import Algorithm, MetaInfo
from innerloop.engine.inner.inner_loop import InnerLoop
from innerloop.engine.keys import MaybeKey
from innerloop.engine.types import LossFn, Params, Task


class MAML(Algorithm):
    """The algorithm that `maml` returns."""

    def loss_through_inner_loop(
        self, meta_params: Params, task: Task, *, key: MaybeKey = None
    ) -> tuple[Array, tuple[Array, PyTree]]:
        """The query loss after adaptation; the inner losses, and the auxiliary outputs of the query loss."""
        trajectory = self.trajectory(meta_params, task.support, key=key)
        loss, aux = self.query(trajectory.adapted, task.query, key=key)
        return loss, (trajectory.losses, aux)

    def objective(self, meta_params: Params, task: Task, *, key: MaybeKey = None) -> Float[Array, ""]:
        """The loss whose derivative is the meta-gradient."""
        return self.loss_through_inner_loop(meta_params, task, key=key)[0]

    def meta_grad(self, meta_params: Params, task: Task, *, key: MaybeKey = None) -> tuple[Params, MetaInfo]:
        """The derivative of the loss through the inner loop."""
        loss_of = lambda meta_params: self.loss_through_inner_loop(meta_params, task, key=key)
        (loss, (inner_losses, aux)), grads = jax.value_and_grad(loss_of, has_aux=True)(meta_params)
        return grads, MetaInfo(loss, inner_losses, aux)


def maml(loss_fn: LossFn, inner: InnerLoop, *, outer_loss_fn: LossFn | None = None) -> MAML:
    """MAML (Finn et al. 2017).

    Args:
        loss_fn: the loss, a mean over examples.
        inner: the inner loop.
        outer_loss_fn: the loss on the query set (None: `loss_fn`).
    """
    return MAML(loss_fn, inner, outer_loss_fn)
