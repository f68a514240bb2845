"""What an algorithm is: a meta-gradient of ONE task, with the loss and the inner loop that it is made of."""

from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from typing import NamedTuple

from jaxtyping import Array, Float, PyTree

from innerloop.engine.inner import InnerLoop, Observe, Trajectory, unroll
from innerloop.engine.types import LossFn, Params, Task


class MetaInfo(NamedTuple):
    """What people look at: the loss that the meta-gradient descends, and the support loss before each inner step."""

    outer_loss: Float[Array, ""]
    inner_losses: Float[Array, " steps"]


@dataclass(frozen=True)
class Algorithm(ABC):
    """The base of all algorithms. One of your own needs `meta_grad`; the rest is there to be overridden.

    All methods are deterministic functions of their arguments: no key, no state, no axis over tasks. *Meta-parameters*
    are what the outer loop learns: the model's parameters, and what else an algorithm learns beside them.

    Attributes:
        loss_fn: the loss that is adapted by.
        inner: the inner loop.
        outer_loss_fn: the loss on the query set (None: `loss_fn`).
    """

    loss_fn: LossFn
    inner: InnerLoop
    outer_loss_fn: LossFn | None = None

    def init(self, params: Params) -> Params:
        """The meta-parameters to begin with, from a model's parameters."""
        return params

    def initialisation(self, meta_params: Params) -> Params:
        """The parameters that every task begins with: what `init` was given, as far as it was learnt since."""
        return meta_params

    def trajectory(self, meta_params: Params, support: PyTree, observe: Observe | None = None) -> Trajectory:
        """The inner loop on one task's support set: adapted parameters, losses, observations (see `unroll`)."""
        return unroll(self.loss_fn, self.inner, meta_params, support, observe)

    def adapt(self, meta_params: Params, support: PyTree) -> Params:
        """The parameters adapted to one task's support set."""
        return self.trajectory(meta_params, support).adapted

    @abstractmethod
    def meta_grad(self, meta_params: Params, task: Task) -> tuple[Params, MetaInfo]:
        """The gradient that the outer loop descends, shaped like `meta_params`."""

    @property
    def query_loss(self) -> LossFn:
        """The loss on the query set."""
        return self.loss_fn if self.outer_loss_fn is None else self.outer_loss_fn

    def with_inner(self, **changes: object) -> "Algorithm":
        """The same algorithm with another inner loop, as for more steps at test: `with_inner(steps=10)`."""
        return replace(self, inner=replace(self.inner, **changes))
