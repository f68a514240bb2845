r"""First-order MAML: the gradient of the query loss *at* the adapted parameters.

    g = grad L(theta_k; query)

This is MAML with every (I - alpha H_i) replaced by I: second derivatives are dropped, so no backward pass runs through
the inner loop.

Finn, Abbeel and Levine 2017, section 5.2, arXiv 1703.03400; Nichol, Achiam and Schulman 2018, arXiv 1803.02999.
"""

import jax

from innerloop.engine.algorithm import Algorithm, MetaInfo
from innerloop.engine.inner.inner_loop import InnerLoop
from innerloop.engine.keys import MaybeKey
from innerloop.engine.losses.loss import params_of, with_params
from innerloop.engine.types import LossFn, Params, Task


class FOMAML(Algorithm):
    """The algorithm that `fomaml` returns."""

    second_order = False

    def meta_grad(self, meta_params: Params, task: Task, *, key: MaybeKey = None) -> tuple[Params, MetaInfo]:
        """The gradient of the query loss at the adapted parameters."""
        trajectory = self.trajectory(meta_params, task.support, key=key)
        query = lambda params: self.query(with_params(trajectory.adapted, params), task.query, key=key)
        (loss, aux), grads = jax.value_and_grad(query, has_aux=True)(params_of(trajectory.adapted))
        return grads, MetaInfo(loss, trajectory.losses, aux)


def fomaml(loss_fn: LossFn, inner: InnerLoop, *, outer_loss_fn: LossFn | None = None) -> FOMAML:
    """First-order MAML (Finn et al. 2017, section 5.2).

    Args:
        loss_fn: the loss, a mean over examples.
        inner: the inner loop.
        outer_loss_fn: the loss on the query set (None: `loss_fn`).
    """
    return FOMAML(loss_fn, inner, outer_loss_fn)
