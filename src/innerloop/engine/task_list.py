"""A fixed list of tasks, possibly of different sizes: drawn at random in training, evaluated once each."""

from collections.abc import Sequence

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PRNGKeyArray, PyTree

from innerloop.engine.keys import MaybeKey, check_key
from innerloop.engine.pytree import by_path, is_numeric
from innerloop.engine.types import Batch, FiniteTasks, Task
from innerloop.errors import InnerloopError


class TaskList(FiniteTasks, eqx.Module):
    """A task distribution made from a list of tasks.

    `sample` draws one of them uniformly at random; `evaluate` uses each once. If their numbers of examples differ, they
    are padded with zeros to the largest, and the `mask` of their batches marks the examples that count. The statistics
    of batch normalisation would include the padding. Without query sets, as in `Task(support, None)`, the list holds
    what an adapted model is needed for: `jax.vmap(algorithm.adapt, (None, 0))(params, users.tasks.support)`.

    Attributes:
        tasks: all tasks, with a leading axis `tasks` on every leaf.
    """

    tasks: Task

    def __init__(self, tasks: Sequence[Task]):
        """Stack the tasks, on the device.

        Args:
            tasks: tasks of NumPy or JAX arrays; if their numbers of examples differ, their sets must be `Batch`es.

        Raises:
            InnerloopError: if there is no task, an item is not a `Task`, the tasks differ in structure, dtype or
                the shape of an example, a set has leaves of different lengths, or sets of different lengths
                are not `Batch`es.
        """
        hint = "give a list of innerloop.Task(support, query)"
        if not isinstance(tasks, Sequence):
            got = type(tasks).__name__
            raise InnerloopError("TaskList", "needs a sequence of tasks", got=got, hint=hint)
        if not tasks:
            raise InnerloopError("TaskList", "there must be at least one task", got=0, hint=hint)
        for number, task in enumerate(tasks):
            if not isinstance(task, Task):
                got = type(task).__name__
                raise InnerloopError("TaskList", f"item {number} must be a task", got=got, hint=hint)
        if not jax.tree.leaves(list(tasks)):
            raise InnerloopError("TaskList", "the tasks hold no arrays", hint="give sets of examples")
        support, query = ([getattr(task, part) for task in tasks] for part in Task._fields)
        self.tasks = Task(_stacked(support, "support"), _stacked(query, "query"))

    def __len__(self) -> int:
        """The number of tasks."""
        return len(jax.tree.leaves(self.tasks)[0])

    def task(self, number: int | Array, key: MaybeKey = None) -> Task:
        """The task with this number; `key` is not used."""
        return jax.tree.map(lambda x: x[number], self.tasks)

    def sample(self, key: PRNGKeyArray) -> Task:
        """Draw one task."""
        check_key(key, "TaskList.sample")
        return self.task(jax.random.randint(key, (), 0, len(self)))


def _stacked(sets: list[PyTree], part: str) -> PyTree:
    """Stack sets of examples into one tree, padded to the longest."""
    lengths = [_length(examples, part, number) for number, examples in enumerate(sets)]
    if len(set(lengths)) > 1:
        sets = [_padded(examples, max(lengths), part) for examples in sets]
    for number, examples in enumerate(sets):
        _check_like(sets[0], examples, f"{part} set of task {number}")
    return jax.tree.map(lambda *x: jnp.asarray(np.stack(x)), *sets)


def _length(examples: PyTree, part: str, number: int) -> int:
    """The number of examples of a set; 0 for an empty tree. Raises InnerloopError unless its leaves are arrays."""
    for path, x in by_path(examples).items():
        if not is_numeric(x):
            wrong = f"`{path}` in the {part} set of task {number} must be an array of numbers"
            got = f"dtype {x.dtype}" if hasattr(x, "dtype") else type(x).__name__
            raise InnerloopError("TaskList", wrong, got=got, hint="give np.asarray(values), for example")
    lengths = {np.shape(x)[0] if np.ndim(x) else 0 for x in jax.tree.leaves(examples)}
    if len(lengths) > 1:
        wrong = f"the leaves of the {part} set of task {number} must have the same length"
        raise InnerloopError(
            "TaskList", wrong, got=sorted(lengths), hint="give every leaf of the set one row per example"
        )
    return lengths.pop() if lengths else 0


def _padded(examples: PyTree, length: int, part: str) -> Batch:
    """A batch padded with rows of zeros, which its mask excludes."""
    if not isinstance(examples, Batch):
        wrong = f"{part} sets of different sizes must be batches, whose mask marks the padding"
        got = type(examples).__name__
        raise InnerloopError("TaskList", wrong, got=got, hint="give innerloop.Batch(inputs, targets)")
    count = _length(examples, part, 0)
    pad = lambda x: np.concatenate([x, np.zeros((length - count, *np.shape(x)[1:]), np.asarray(x).dtype)])
    mask = np.ones(count, bool) if examples.mask is None else examples.mask
    return Batch(*jax.tree.map(pad, (examples.inputs, examples.targets, mask)))


def _check_like(first: PyTree, other: PyTree, who: str) -> None:
    """Raise InnerloopError unless a set matches the first one."""
    wanted, got = jax.tree.structure(first), jax.tree.structure(other)
    if wanted != got:
        raise InnerloopError("TaskList", f"the {who} must have the structure {wanted}", got=got)
    for a, b in zip(jax.tree.leaves(first), jax.tree.leaves(other), strict=True):
        wanted, got = (f"{np.asarray(x).dtype}{list(np.shape(x))}" for x in (a, b))
        if wanted != got:
            hint = "give the examples of all tasks the same shape and dtype"
            raise InnerloopError(
                "TaskList", f"the {who} must match that of task 0, {wanted}", got=got, hint=hint
            )
