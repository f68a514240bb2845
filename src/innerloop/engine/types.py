"""One task's data, distributions of tasks, and the names of axes.

Axis names used in signatures throughout: `tasks` (meta-batch), `support` and `query` (examples of one task),
`examples` (either of them), `ways` (classes of an episode), `shots` and `queries` (examples per class),
`steps` (inner steps), `height width channels`, `classes`.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import NamedTuple, Protocol, runtime_checkable

import jax
from jaxtyping import Array, Bool, Float, PRNGKeyArray, PyTree

Params = PyTree[Array]
"""Any pytree of arrays; the engine knows no framework's classes."""

LossFn = Callable[[Params, PyTree], Float[Array, ""]]
"""`loss_fn(params, batch) -> scalar`, the only function that a user has to write."""


class Batch(NamedTuple):
    """Labelled examples, as the built-in losses read them; the engine accepts any pytree with a leading axis.

    Attributes:
        inputs: `[examples, ...]`.
        targets: `[examples, ...]`.
        mask: which examples count, `[examples]` bool (None: all of them). Tasks with unequal numbers of examples are
            padded to one length; the built-in losses and scores leave the padding out.
    """

    inputs: PyTree
    targets: PyTree
    mask: Bool[Array, " examples"] | None = None


class Task(NamedTuple):
    """One task; a batch of tasks is the same pytree with a leading axis `tasks` on every leaf.

    Attributes:
        support: the examples to adapt on, with a leading axis `support` on every leaf.
        query: the examples to evaluate the adapted parameters on, with a leading axis `query`; disjoint from the
            support set.
    """

    support: PyTree
    query: PyTree


@runtime_checkable
class TaskDistribution(Protocol):
    """A distribution over tasks, p(T): any object with a pure `sample`."""

    def sample(self, key: PRNGKeyArray) -> Task:
        """Draw one task. It is called inside `jit` and `vmap`, on the device."""
        ...


class TwoStageSampler(ABC):
    """A base class for distributions that separate the random choice of a task from its data.

    The outer loop draws the choices of all tasks of an update at once. Where tasks are too large to be held together,
    it then fetches the data of one chunk at a time.
    """

    def sample(self, key: PRNGKeyArray) -> Task:
        """Draw one task."""
        return self.fetch(self.draw(key))

    @abstractmethod
    def draw(self, key: PRNGKeyArray) -> PyTree:
        """Draw the random choice of one task, a small pytree of arrays (row indices, for example)."""

    @abstractmethod
    def fetch(self, drawn: PyTree) -> Task:
        """The task that `draw` chose."""


class FiniteTasks(ABC):
    """A base class for distributions of a finite number of tasks: training draws them, `evaluate` takes each once."""

    @abstractmethod
    def __len__(self) -> int:
        """The number of tasks."""

    @abstractmethod
    def task(self, number: int | Array, key: PRNGKeyArray) -> Task:
        """The task of this number.

        Args:
            number: of the task, from 0.
            key: what is random about it, such as which of its examples are the support set.
        """

    def sample(self, key: PRNGKeyArray) -> Task:
        """Draw one of the tasks, all equally likely."""
        which, own = jax.random.split(key)
        return self.task(jax.random.randint(which, (), 0, len(self)), own)
