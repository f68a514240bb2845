"""The data of one task, task distributions, and the names of axes.

Axis names used in signatures throughout: `tasks` (meta-batch), `support` and `query` (examples of one task),
`examples` (either of them), `ways` (classes of an episode), `shots` and `queries` (examples per class),
`steps` (inner steps), `height width channels`, `classes`.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import NamedTuple, Protocol, runtime_checkable

import jax
from jaxtyping import Array, Bool, Float, Num, PRNGKeyArray, PyTree

from innerloop.engine.keys import check_key
from innerloop.engine.pytree import shapes_only

Params = PyTree[Array]
"""Any pytree of arrays; the engine does not depend on any framework's classes."""

LossFn = Callable[[Params, PyTree], Float[Array, ""]]
"""`loss_fn(params, batch) -> scalar`, the only function that users have to write."""


class Batch(NamedTuple):
    """Labelled examples for the built-in losses; the engine itself accepts any pytree with a leading axis.

    Attributes:
        inputs: `[examples, ...]`.
        targets: `[examples, ...]`.
        mask: which examples count, `[examples]` bool, or their weights, `[examples]` numbers of 0 or more (None: all
            count equally). Tasks with different numbers of examples are padded to the same length; the built-in losses
            and scores ignore the padding. A model that mixes examples, such as one with batch normalisation, does not:
            it reads the padding's inputs.
    """

    inputs: PyTree
    targets: PyTree
    mask: Bool[Array, " examples"] | Num[Array, " examples"] | None = None

    __repr__ = shapes_only


class Task(NamedTuple):
    """One task; a batch of tasks is the same pytree with a leading axis `tasks` on every leaf.

    Attributes:
        support: the examples to adapt on, with a leading axis `support` on every leaf.
        query: the examples to evaluate the adapted parameters on, with a leading axis `query`; disjoint from the
            support set.
    """

    support: PyTree
    query: PyTree

    __repr__ = shapes_only


@runtime_checkable
class TaskDistribution(Protocol):
    """A distribution over tasks, p(T): any object with a pure `sample`."""

    def sample(self, key: PRNGKeyArray) -> Task:
        """Draw one task. This is called inside `jit` and `vmap`, on the device."""
        ...


class TwoStageSampler(ABC):
    """A base class for distributions that separate the random choice of a task from its data.

    The outer loop draws the choices for all tasks of an update at once. If the tasks are too large to hold in memory
    together, it then fetches the data one chunk at a time.
    """

    def sample(self, key: PRNGKeyArray) -> Task:
        """Draw one task."""
        check_key(key, f"{type(self).__name__}.sample")
        return self.fetch(self.draw(key))

    @abstractmethod
    def draw(self, key: PRNGKeyArray) -> PyTree:
        """Draw the random choice of one task, a small pytree of arrays (row indices, for example)."""

    @abstractmethod
    def fetch(self, drawn: PyTree) -> Task:
        """The task that `draw` chose."""


class FiniteTasks(ABC):
    """A base class for a finite set of tasks: training draws from it, `evaluate` uses each task once."""

    @abstractmethod
    def __len__(self) -> int:
        """The number of tasks."""

    @abstractmethod
    def task(self, number: int | Array, key: PRNGKeyArray) -> Task:
        """The task with this number.

        Args:
            number: the number of the task, from 0.
            key: for random choices within the task, such as which of its examples form the support set.
        """

    def sample(self, key: PRNGKeyArray) -> Task:
        """Draw one of the tasks uniformly at random."""
        check_key(key, f"{type(self).__name__}.sample")
        which, own = jax.random.split(key)
        return self.task(jax.random.randint(which, (), 0, len(self)), own)
