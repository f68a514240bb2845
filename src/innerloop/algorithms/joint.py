r"""Joint training, the baseline: one model for all tasks, with no inner loop during training.

    g = grad L(theta; query)

At test time the model is fine-tuned by the same inner loop as with other algorithms ("pretrained" in the MAML paper,
section 5.1).
"""

import jax
import jax.numpy as jnp

from innerloop.engine.algorithm import Algorithm, MetaInfo
from innerloop.engine.inner.inner_loop import InnerLoop
from innerloop.engine.keys import MaybeKey
from innerloop.engine.losses.loss import with_params, with_state
from innerloop.engine.types import LossFn, Params, Task


class Joint(Algorithm):
    """The algorithm that `joint` returns."""

    second_order = False
    adapts_in_training = False

    def meta_grad(self, meta_params: Params, task: Task, *, key: MaybeKey = None) -> tuple[Params, MetaInfo]:
        """The gradient of the query loss, without an inner loop."""
        start = with_state(meta_params, self.loss_fn)
        query = lambda params: self.query(with_params(start, params), task.query, key=key)
        (loss, aux), grads = jax.value_and_grad(query, has_aux=True)(meta_params)
        return grads, MetaInfo(loss, jnp.zeros(0, loss.dtype), aux)


def joint(loss_fn: LossFn, inner: InnerLoop, *, outer_loss_fn: LossFn | None = None) -> Joint:
    """Joint training: gradient descent on the query losses themselves.

    Args:
        loss_fn: the loss, a mean over examples.
        inner: the inner loop, used only at test time.
        outer_loss_fn: the loss on the query set (None: `loss_fn`).
    """
    return Joint(loss_fn, inner, outer_loss_fn)
