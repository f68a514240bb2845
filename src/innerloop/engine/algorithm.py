"""What an algorithm is: a meta-gradient of ONE task, together with its loss and its inner loop."""

from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from typing import NamedTuple

from jaxtyping import Array, Float, PyTree

from innerloop.engine.diagnosis import adaptation_lost, meta_gradient_lost
from innerloop.engine.eager import one_program
from innerloop.engine.inner import InnerLoop, Observe, Trajectory, unroll
from innerloop.engine.types import LossFn, Params, Task


class MetaInfo(NamedTuple):
    """What is logged of one task.

    Attributes:
        outer_loss: the loss that the meta-gradient descends, a scalar.
        inner_losses: the support loss before each inner step, `[steps]`.
    """

    outer_loss: Float[Array, ""]
    inner_losses: Float[Array, " steps"]


@dataclass(frozen=True)
class Algorithm(ABC):
    """The base class of all algorithms. A subclass defines `meta_grad` and may override the other methods.

    All methods are deterministic functions of their arguments: no key, no state, no axis over tasks. *Meta-parameters*
    are everything that the outer loop learns: the model's parameters, and whatever an algorithm learns beside them.

    Outside of `jax.jit` and other transformations, a call of `adapt` or `meta_grad` is traced anew and runs as one
    program, which is compiled once. It raises an InnerloopError if its result is not finite. `jax.jit(algorithm.adapt)`
    saves the tracing too, and checks nothing.

    Attributes:
        loss_fn: the loss on the support set.
        inner: the inner loop.
        outer_loss_fn: the loss on the query set (None: `loss_fn`).
    """

    loss_fn: LossFn
    inner: InnerLoop
    outer_loss_fn: LossFn | None = None

    def __init_subclass__(cls) -> None:
        for name, lost in (("adapt", adaptation_lost), ("meta_grad", meta_gradient_lost)):
            if name in vars(cls):
                setattr(cls, name, one_program(lost)(vars(cls)[name]))

    def init(self, params: Params) -> Params:
        """The initial meta-parameters, from the parameters of a model."""
        return params

    def initialisation(self, meta_params: Params) -> Params:
        """The model parameters within the meta-parameters, from which every task starts; the inverse of `init`."""
        return meta_params

    def trajectory(self, meta_params: Params, support: PyTree, observe: Observe | None = None) -> Trajectory:
        """Run the inner loop on the support set of one task.

        Args:
            meta_params: what `init` made and the outer loop learnt.
            support: a pytree with a leading axis `support` on every leaf.
            observe: called after every step, as by `unroll`.

        Raises:
            InnerloopError: as `unroll`.
        """
        return unroll(self.loss_fn, self.inner, meta_params, support, observe)

    @one_program(adaptation_lost)
    def adapt(self, meta_params: Params, support: PyTree) -> Params:
        """The parameters adapted to the support set of one task. Raises InnerloopError as `unroll`."""
        return self.trajectory(meta_params, support).adapted

    @abstractmethod
    def meta_grad(self, meta_params: Params, task: Task) -> tuple[Params, MetaInfo]:
        """The gradient that the outer loop descends, of the structure of `meta_params`, and what to log.

        Raises:
            InnerloopError: as `unroll`.
        """

    @property
    def query_loss(self) -> LossFn:
        """The loss on the query set."""
        return self.loss_fn if self.outer_loss_fn is None else self.outer_loss_fn

    def with_inner(self, **changes: object) -> "Algorithm":
        """The same algorithm with changed fields of its inner loop: `with_inner(steps=10)` for more steps at test."""
        return replace(self, inner=replace(self.inner, **changes))
