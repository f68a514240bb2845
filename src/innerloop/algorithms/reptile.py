r"""Reptile: move the initialisation towards the adapted weights.

    g = theta - W,   W = U_k(theta; support),      so that  theta - epsilon g = theta + epsilon (W - theta)

With one task in the meta-batch this is the serial version, with n the batched one (the mean over tasks is taken
outside). With `alpha` given, g is divided by it: (theta - W) / alpha, the "Reptile gradient", which for one step of
gradient descent is the plain gradient of the support loss.

Nichol, Achiam and Schulman 2018, "On First-Order Meta-Learning Algorithms", algorithms 1 and 2, arXiv 1803.02999.
The authors' code keeps Adam's second moments from one task to the next: `innerloop.kept_adam` makes them a part of
theta, so that the gradient stays a function of theta and the task alone. The query set is not read.
"""

from typing import Any

import jax

from innerloop.algorithms.algorithm import Algorithm, MetaInfo
from innerloop.errors import InnerloopError
from innerloop.inner import InnerLoop, unroll
from innerloop.task import LossFn, Params, Task
from innerloop.tree import subtract


def reptile(loss_fn: LossFn, inner: InnerLoop, *, alpha: float | None = None) -> Algorithm:
    """Reptile on `loss_fn`; `alpha` divides the displacement. Its outer loss is the last inner step's loss."""
    if inner.steps < 1:
        raise InnerloopError("reptile", "the inner loop must take at least one step", got=inner.steps)

    def adapt(params: Params, support: Any) -> Params:
        return unroll(loss_fn, inner, params, support).adapted

    def meta_grad(params: Params, task: Task) -> tuple[Params, MetaInfo]:
        trajectory = unroll(loss_fn, inner, params, task.support)
        grads = subtract(params, trajectory.adapted)
        if alpha is not None:
            grads = jax.tree.map(lambda g: g / alpha, grads)
        return grads, MetaInfo(trajectory.losses[-1], trajectory.losses)

    return Algorithm(adapt, meta_grad)
