"""The base class of algorithms: the meta-gradient of ONE task, with its loss and its inner loop."""

from abc import ABC, abstractmethod
from dataclasses import dataclass, fields, replace
from typing import ClassVar, NamedTuple

import jax
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from innerloop.engine.diagnosis import locate_in_adaptation, locate_in_meta_gradient
from innerloop.engine.eager import one_program
from innerloop.engine.inner.inner_loop import InnerLoop, check_inner
from innerloop.engine.inner.unroll import Observe, Trajectory, unroll
from innerloop.engine.keys import MaybeKey
from innerloop.engine.losses.loss import (
    Adapted,
    check_function,
    evaluate_loss,
    fold_key,
    initial_state,
    is_random,
)
from innerloop.engine.losses.loss_errors import loss_errors
from innerloop.engine.pytree import Selection, in_words, shapes_only
from innerloop.engine.types import LossFn, Params, Task
from innerloop.errors import InnerloopError
from innerloop.parallel.precision import with_exact_products


class MetaInfo(NamedTuple):
    """What is logged for one task.

    Attributes:
        outer_loss: the loss that the meta-gradient descends, a scalar.
        inner_losses: the support loss before each inner step, `[steps]`.
        aux: the auxiliary outputs of the loss, a pytree of arrays (None if it has none).
    """

    outer_loss: Float[Array, ""]
    inner_losses: Float[Array, " steps"]
    aux: PyTree = None

    __repr__ = shapes_only


QUERY = 2**31 - 1
"""Folded into a task's key for the loss on its query set; inner steps fold in 0, 1, 2, ..."""


def loss_key(task_key: PRNGKeyArray) -> PRNGKeyArray:
    """The key for a task's random losses, derived from the key that the task is drawn with."""
    return jax.random.fold_in(task_key, 1)


def check_task(task: object, who: str) -> None:
    """Raise InnerloopError, on behalf of `who`, unless this has a support and a query set."""
    if isinstance(task, type) or not (hasattr(task, "support") and hasattr(task, "query")):
        got, hint = type(task).__name__, "pass innerloop.Task(support, query)"
        raise InnerloopError(who, "needs a task", got=got, hint=hint)


_ADAPT = one_program(locate_in_adaptation)
_META_GRAD = one_program(locate_in_meta_gradient, check_task)


@dataclass(frozen=True)
class Algorithm(ABC):
    """The base class of all algorithms. A subclass defines `meta_grad` and may override the other methods.

    All methods are pure functions of one task, without an axis over tasks. Only a random loss needs the `key`.
    *Meta-parameters* are everything that the outer loop learns: the model's parameters, and anything else that an
    algorithm learns.

    Outside `jax.jit` and other transformations, each call of `adapt` or `meta_grad` is traced again, but runs as one
    program that is compiled only once. It raises an InnerloopError if its result is not finite.
    `jax.jit(algorithm.adapt)` also saves the tracing, but checks nothing.

    Attributes:
        loss_fn: the loss on the support set.
        inner: the inner loop.
        outer_loss_fn: the loss on the query set (None: `loss_fn`).

    Raises:
        InnerloopError: if `inner` is not an inner loop, or a loss is not a function.
    """

    second_order: ClassVar[bool] = True
    """Whether the meta-gradient differentiates through the inner loop."""
    reads_query: ClassVar[bool] = True
    """Whether the meta-gradient reads the query set."""
    adapts_in_training: ClassVar[bool] = True
    """Whether the meta-gradient runs the inner loop."""

    loss_fn: LossFn
    inner: InnerLoop
    outer_loss_fn: LossFn | None = None

    def __init_subclass__(cls) -> None:
        for name in ("start", "trajectory", "query_loss", "query"):
            if name in vars(cls):
                setattr(cls, name, with_exact_products(vars(cls)[name]))
        for name, around in (("adapt", _ADAPT), ("meta_grad", _META_GRAD)):
            if name in vars(cls):
                setattr(cls, name, around(vars(cls)[name]))

    def __post_init__(self) -> None:
        check_inner(self.inner, type(self).__name__)
        for name, loss_fn in (("loss_fn", self.loss_fn), ("outer_loss_fn", self._outer_loss)):
            check_function(loss_fn, type(self).__name__, name, "loss_fn(params, batch)")

    def init(self, params: Params) -> Params:
        """Make the initial meta-parameters from the parameters of a model."""
        return params

    def initialization(self, meta_params: Params) -> Params:
        """The model parameters within the meta-parameters; the inverse of `init`."""
        return meta_params

    def start(self, meta_params: Params, support: PyTree) -> Params:
        """The parameters before the first inner step of a task; by default the initialisation."""
        return self.initialization(meta_params)

    def inner_for(self, meta_params: Params) -> InnerLoop:
        """The inner loop with its learned parts, such as step sizes; by default `inner`."""
        return self.inner

    @with_exact_products
    def trajectory(
        self, meta_params: Params, support: PyTree, observe: Observe | None = None, *, key: MaybeKey = None
    ) -> Trajectory:
        """Run the inner loop on the support set of one task.

        Args:
            meta_params: the result of `init`, or what the outer loop has learned from it.
            support: a pytree with a leading axis `support` on every leaf.
            observe: called after every step, as in `unroll`.
            key: the task's key, for a random loss.

        Raises:
            InnerloopError: as in `unroll`.
        """
        start = self.start(meta_params, support)
        return unroll(self.loss_fn, self.inner_for(meta_params), start, support, observe, key=key)

    @_ADAPT
    def adapt(self, meta_params: Params, support: PyTree, *, key: MaybeKey = None) -> Params:
        """The parameters adapted to the support set of one task; with model state, `Adapted(params, state)`.

        Raises:
            InnerloopError: as in `unroll`.
        """
        return self.trajectory(meta_params, support, key=key).adapted

    @abstractmethod
    def meta_grad(self, meta_params: Params, task: Task, *, key: MaybeKey = None) -> tuple[Params, MetaInfo]:
        """The gradient that the outer loop descends, with the structure of `meta_params`, and what to log.

        Args:
            meta_params: the result of `init`, or what the outer loop has learned from it.
            task: one task.
            key: the task's key, for a random loss.

        Raises:
            InnerloopError: as in `unroll`.
        """

    def objective(self, meta_params: Params, task: Task, *, key: MaybeKey = None) -> Float[Array, ""]:
        """The function of one task whose exact gradient `check_meta_gradient` compares with `meta_grad`.

        By default the loss on the query set after adaptation.
        """
        return self.query_loss(self.adapt(meta_params, task.support, key=key), task.query, key=key)

    @property
    def held_constant(self) -> Selection:
        """The meta-parameters that `meta_grad` takes for constants by definition; by default none."""
        return ()

    def at(self, step: Array) -> "Algorithm":
        """The algorithm at one update of the outer loop, for schedules over updates; by default itself."""
        return self

    @property
    def plain(self) -> bool:
        """Whether the losses depend only on parameters and batch: they are not random and have no model state."""
        return not self.random and initial_state(self.loss_fn) is None

    @property
    def random(self) -> bool:
        """Whether a loss is random, so that `adapt` and `meta_grad` need a key."""
        return is_random(self.loss_fn) or is_random(self._outer_loss)

    @with_exact_products
    def query_loss(self, adapted: Params | Adapted, batch: PyTree, *, key: MaybeKey = None) -> Array:
        """The loss of adapted parameters on the query set, a scalar; `key` is the task's key."""
        return self.query(adapted, batch, key=key)[0]

    @with_exact_products
    def query(
        self, adapted: Params | Adapted, batch: PyTree, *, key: MaybeKey = None
    ) -> tuple[Array, PyTree]:
        """The loss of adapted parameters on the query set, and its auxiliary outputs."""
        # A loss without state ignores the state; one with state starts from its own if the inner loop had none.
        loss_fn = self._outer_loss
        with loss_errors(batch, "loss_fn" if self.outer_loss_fn is None else "outer_loss_fn"):
            params, state = adapted if isinstance(adapted, Adapted) else (adapted, initial_state(loss_fn))
            value, extras = evaluate_loss(loss_fn, params, batch, fold_key(key, QUERY), state)
        return value, extras.aux

    @property
    def _outer_loss(self) -> LossFn:
        return self.loss_fn if self.outer_loss_fn is None else self.outer_loss_fn

    def with_inner(self, **changes: object) -> "Algorithm":
        """A copy with changed fields of the inner loop, such as `with_inner(steps=10)` for more steps at test time."""
        return replace(self, inner=replace(self.inner, **changes))


def described(algorithm: Algorithm) -> dict[str, object]:
    """The name of an algorithm, its inner steps with their size, what they adapt, and its own plain settings."""
    inner = algorithm.inner
    own = {field.name: getattr(algorithm, field.name) for field in fields(algorithm) if field.repr}
    found = {"algorithm": type(algorithm).__name__, "inner_steps": inner.steps}
    found |= {"inner_step_size": inner.step_size, "adapts": in_words(inner.select)} | own
    return {name: value for name, value in found.items() if isinstance(value, bool | int | float | str)}


def check_is_algorithm(
    algorithm: object, who: str, hint: str = "pass maml(loss_fn, InnerLoop(optax.sgd(0.1), 5)), for example"
) -> None:
    """Raise InnerloopError, on behalf of `who`, unless this is an algorithm."""
    if not isinstance(algorithm, Algorithm):
        got = getattr(algorithm, "__name__", type(algorithm).__name__)
        raise InnerloopError(who, "needs an algorithm", got=got, hint=hint)
