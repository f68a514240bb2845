r"""Reptile: move the initialisation towards the adapted weights.

    g = theta - W,   W = U_k(theta; support),      so that  theta - epsilon g = theta + epsilon (W - theta)

With one task in the meta-batch this is the serial version; with n tasks, it is the batched one (the mean over tasks is
taken outside). If `alpha` is given, g is divided by it: (theta - W) / alpha, the "Reptile gradient", which for one step
of gradient descent is the plain gradient of the support loss.

Nichol, Achiam and Schulman 2018, "On First-Order Meta-Learning Algorithms", algorithms 1 and 2, arXiv 1803.02999.
The authors' code keeps Adam's second moments from one task to the next. `innerloop.engine.outer.persistent_adam` makes
them part of theta, so that the gradient remains a function of only theta and the task. The query set is not used.
"""

from dataclasses import dataclass

import jax
from jaxtyping import PyTree

from innerloop.config.bounds import POSITIVE, check_argument
from innerloop.engine.algorithm import Algorithm, MetaInfo
from innerloop.engine.inner.inner_loop import InnerLoop
from innerloop.engine.inner.unroll import Observe, Trajectory, unroll
from innerloop.engine.keys import MaybeKey
from innerloop.engine.losses.loss import Adapted, params_of, with_params
from innerloop.engine.outer.persistent_adam import PersistentAdam, of_model, on_model, with_moments
from innerloop.engine.pytree import subtract
from innerloop.engine.types import LossFn, Params, Task
from innerloop.errors import InnerloopError


@dataclass(frozen=True)
class Reptile(Algorithm):
    """The algorithm that `reptile` returns."""

    second_order = False
    reads_query = False

    alpha: float | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.alpha is not None:
            check_argument("reptile", "alpha", self.alpha, POSITIVE)

    def init(self, params: Params) -> Params:
        """The parameters, with their second moments if the inner rule is `persistent_adam`."""
        return with_moments(params) if self.keeps_moments else params

    def initialization(self, meta_params: Params) -> Params:
        """The parameters without their second moments."""
        return of_model(meta_params) if self.keeps_moments else meta_params

    @property
    def keeps_moments(self) -> bool:
        """Whether second moments are among the meta-parameters."""
        return isinstance(self.inner.rule, PersistentAdam)

    def trajectory(
        self, meta_params: Params, support: PyTree, observe: Observe | None = None, *, key: MaybeKey = None
    ) -> Trajectory:
        """Run the inner loop on the support set of one task; the second moments are left out of the result."""
        watch = None if observe is None else lambda adapted, i: observe(self._of_model(adapted), i)
        found = self.whole_trajectory(meta_params, support, watch, key=key)
        return found._replace(adapted=self._of_model(found.adapted))

    def _of_model(self, adapted: Params | Adapted) -> Params | Adapted:
        """Adapted parameters without their second moments."""
        return with_params(adapted, self.initialization(params_of(adapted)))

    def whole_trajectory(
        self, meta_params: Params, support: PyTree, observe: Observe | None = None, *, key: MaybeKey = None
    ) -> Trajectory:
        """Like `trajectory`, but with the second moments."""
        pair = self.loss_fn, self.inner
        pair = on_model(*pair) if self.keeps_moments else pair
        return unroll(*pair, meta_params, support, observe, key=key)

    def meta_grad(self, meta_params: Params, task: Task, *, key: MaybeKey = None) -> tuple[Params, MetaInfo]:
        """The displacement theta - W, divided by `alpha` if it is given."""
        _check_steps(self.inner)
        trajectory = self.whole_trajectory(meta_params, task.support, key=key)
        grads = subtract(meta_params, params_of(trajectory.adapted))
        if self.alpha is not None:
            grads = jax.tree.map(lambda g: g / self.alpha, grads)
        last_aux = jax.tree.map(lambda x: x[-1], trajectory.aux)
        return grads, MetaInfo(trajectory.losses[-1], trajectory.losses, last_aux)


def reptile(loss_fn: LossFn, inner: InnerLoop, *, alpha: float | None = None) -> Reptile:
    """Reptile (Nichol et al. 2018). Its `outer_loss` is the support loss before the last inner step.

    Args:
        loss_fn: the loss, a mean over examples.
        inner: the inner loop, with at least one step.
        alpha: the divisor of the displacement (None: 1).

    Raises:
        InnerloopError: if the inner loop has no steps, or `alpha` is not above 0.
    """
    algorithm = Reptile(loss_fn, inner, alpha=alpha)
    _check_steps(inner)
    return algorithm


def _check_steps(inner: InnerLoop) -> None:
    """Raise InnerloopError for an inner loop without steps."""
    if inner.steps < 1:
        raise InnerloopError("reptile", "the inner loop must take at least one step", got=inner.steps)
