"""An outer loop over meta-batches from a Python iterable: a PyTorch `DataLoader`, a Grain pipeline, a generator."""

from collections.abc import Iterable, Iterator
from itertools import islice

import jax
import numpy as np
import optax
from jax.sharding import Mesh
from jaxtyping import PyTree

from innerloop.engine.algorithm import Algorithm
from innerloop.engine.meta_state import MetaState
from innerloop.engine.pytree import kinds
from innerloop.engine.types import Task
from innerloop.errors import InnerloopError
from innerloop.io.text import counted
from innerloop.parallel.mesh import from_local_shards, local_tasks
from innerloop.tasks.block_loop import BlockLoop

WHO = "IteratorOuterLoop"


class IteratorOuterLoop(BlockLoop):
    """`OuterLoop` over an iterable of meta-batches, each a `Task` with a leading axis `tasks` on every leaf.

    The state does not record the iterator's position. To make a run resumable, pass a function that takes the number of
    updates done and returns an iterator that starts there. `run` raises an InnerloopError if the iterator ends or
    yields anything but a meta-batch of tasks.
    """

    def __init__(
        self,
        algorithm: Algorithm,
        optimizer: optax.GradientTransformation,
        batches: object,
        *,
        meta_batch: int,
        chunk: int | None = None,
        mesh: Mesh | None = None,
    ):
        """Nothing is read before `run`.

        Args:
            algorithm: as for `OuterLoop`.
            optimizer: as for `OuterLoop`.
            batches: an iterable of tasks, or of pairs of support and query set, whose leaves are arrays or CPU tensors
                with a leading axis of length `meta_batch`; with several processes, only this process's share of it. Or
                a function `batches(step)` that returns such an iterable. `run` calls it with the number of updates of
                the given state, at first and whenever that state is not the one that `run` returned last.
            meta_batch: as for `OuterLoop`.
            chunk: as for `OuterLoop`.
            mesh: as for `OuterLoop`.

        Raises:
            InnerloopError: if the meta-batch is not a multiple of devices x chunk, or `batches` is not iterable.
        """
        super().__init__(algorithm, optimizer, meta_batch, chunk, mesh)
        self.read = 0
        self.batches_from = None if isinstance(batches, Iterable) or not callable(batches) else batches
        self.batches = iter(()) if self.batches_from else _iterator(batches)

    @property
    def resumable(self) -> bool:
        """Whether the meta-batches are a function of the number of updates."""
        return self.batches_from is not None

    def first(self) -> Task | None:
        """The first meta-batch, from a separate call of the function; None for an iterator, which it would consume."""
        batch = next(_iterator(self.batches_from(0)), None) if self.batches_from else None
        return None if batch is None else _as_task(batch, self.own)

    @property
    def own(self) -> int:
        """The number of tasks in a meta-batch that belong to this process."""
        tasks = local_tasks(self.mesh, self.meta_batch)
        return tasks.stop - tasks.start

    def block(self, state: MetaState, steps: int, follows: bool) -> Task:
        """The next `steps` meta-batches, on the devices."""
        if self.batches_from and not follows:
            self.read, self.batches = 0, _iterator(self.batches_from(int(state.step)))
        found = [_as_task(batch, self.own) for batch in islice(self.batches, steps)]
        self.read += len(found)
        if len(found) < steps:
            wrong = f"the iterator ended after {counted(self.read, 'meta-batch', 'meta-batches')}"
            raise InnerloopError(WHO, wrong, hint="repeat the data, for example by itertools.cycle")
        _check_same_shapes(found)
        return from_local_shards(jax.tree.map(lambda *x: np.stack(x), *found), self.split)


def _iterator(batches: object) -> Iterator[object]:
    """An iterator over `batches`. Raises InnerloopError if it is not iterable."""
    if not isinstance(batches, Iterable) or getattr(batches, "ndim", 1) == 0:
        hint = "pass a DataLoader, a generator or a list of tasks"
        raise InnerloopError(WHO, "`batches` must be iterable", got=type(batches).__name__, hint=hint)
    return iter(batches)


def _check_same_shapes(found: list[Task]) -> None:
    """Raise InnerloopError unless the meta-batches of one call, which are updates of one program, have one shape."""
    first = kinds(found[0])
    for now in map(kinds, found[1:]):
        path = next((path for path in {**first, **now} if first.get(path) != now.get(path)), None)
        if path is not None:
            got = f"{now.get(path, 'nothing')} after {first.get(path, 'nothing')} at `{path}`"
            hint = "pad them with a mask, or take such updates in calls of their own: `run(state, steps=1)`"
            raise InnerloopError(
                WHO, "the meta-batches of a call must have the same shapes", got=got, hint=hint
            )


def _as_task(batch: object, tasks: int) -> Task:
    """A meta-batch as NumPy arrays. Raises InnerloopError unless it is a meta-batch of `tasks` tasks."""
    if not isinstance(batch, tuple | list) or len(batch) != 2:
        hint = "yield innerloop.Task(support, query), each leaf with a leading axis of tasks"
        raise InnerloopError(WHO, "`batches` must yield tasks", got=type(batch).__name__, hint=hint)
    task: PyTree = jax.tree.map(np.asarray, Task(*batch))
    for leaf in jax.tree.leaves(task):
        if leaf.ndim == 0 or len(leaf) != tasks:
            wrong = f"every leaf must have a leading axis of {counted(tasks, 'task')}"
            raise InnerloopError(
                WHO, wrong, got=f"shape {leaf.shape}", hint="stack the tasks of a meta-batch"
            )
    return task
