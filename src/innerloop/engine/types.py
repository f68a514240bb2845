"""The nouns: one task's data, and the vocabulary of axis names.

Axis names used in signatures throughout: `tasks` (meta-batch), `support` and `query` (examples of one task),
`examples` (either of them), `ways` (classes of an episode), `shots` and `queries` (examples per class),
`steps` (inner steps), `height width channels`, `classes`.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import NamedTuple, Protocol, runtime_checkable

from jaxtyping import Array, Float, PRNGKeyArray, PyTree

Params = PyTree[Array]
"""Any pytree of arrays. The engine never sees a framework class."""

LossFn = Callable[[Params, PyTree], Float[Array, ""]]
"""`loss_fn(params, batch) -> scalar`: all that a user has to write."""


class Batch(NamedTuple):
    """Labelled examples: every leaf has the leading axis `examples`.

    The engine accepts any pytree with that leading axis; the built-in losses read these two fields.
    """

    inputs: PyTree
    targets: PyTree


class Task(NamedTuple):
    """One task: `support` to adapt on, `query` to be judged on, disjoint.

    A batch of tasks is the same pytree with a leading axis `tasks` on every leaf.
    """

    support: PyTree
    query: PyTree


@runtime_checkable
class TaskDistribution(Protocol):
    """A distribution over tasks, p(T)."""

    def sample(self, key: PRNGKeyArray) -> Task:
        """Draw one task; pure, so that it runs inside `jit`, on the device."""
        ...


class TwoStageSampler(ABC):
    """A base class for distributions whose random numbers are drawn apart from what they choose.

    `draw(key)` gives what is random in one task, as a small pytree of arrays, and `fetch(drawn)` the task. The outer
    loop draws for all tasks of a meta-step at once and fetches each task's data in its turn, where tasks are too
    large to be kept.
    """

    def sample(self, key: PRNGKeyArray) -> Task:
        """Draw one task."""
        return self.fetch(self.draw(key))

    @abstractmethod
    def draw(self, key: PRNGKeyArray) -> PyTree:
        """What is random in one task."""

    @abstractmethod
    def fetch(self, drawn: PyTree) -> Task:
        """The task of what was drawn."""
