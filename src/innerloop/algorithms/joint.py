r"""Joint training, the baseline: one model for all tasks, with no inner loop while training.

    g = grad L(theta; query)

At test time it is fine-tuned by the same inner loop as the others ("pretrained" in the MAML paper, section 5.1).
"""

from typing import Any

import jax
import jax.numpy as jnp

from innerloop.algorithms.algorithm import Algorithm, MetaInfo
from innerloop.inner import InnerLoop, unroll
from innerloop.task import LossFn, Params, Task


def joint(loss_fn: LossFn, inner: InnerLoop) -> Algorithm:
    """Gradient descent on the query losses themselves; `inner` serves only `adapt`."""

    def adapt(params: Params, support: Any) -> Params:
        return unroll(loss_fn, inner, params, support).adapted

    def meta_grad(params: Params, task: Task) -> tuple[Params, MetaInfo]:
        loss, grads = jax.value_and_grad(loss_fn)(params, task.query)
        return grads, MetaInfo(loss, jnp.zeros(0, loss.dtype))

    return Algorithm(adapt, meta_grad)
