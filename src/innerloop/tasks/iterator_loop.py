"""The outer loop over meta-batches from Python: a PyTorch `DataLoader`, a Grain pipeline, a generator."""

from collections.abc import Iterable, Iterator
from itertools import islice

import jax
import numpy as np
import optax
from jax.sharding import Mesh
from jaxtyping import PyTree

from innerloop.engine.algorithm import Algorithm
from innerloop.engine.outer import MetaState, StepInfo
from innerloop.engine.types import Task
from innerloop.errors import InnerloopError
from innerloop.parallel.mesh import own_tasks, put_split
from innerloop.tasks.block_loop import BlockLoop

WHO = "IteratorOuterLoop"


class IteratorOuterLoop(BlockLoop):
    """`OuterLoop` over an iterable of meta-batches, each a `Task` with a leading axis `tasks` on every leaf.

    The state does not record the position of the iterator. To resume a run, pass a function that takes the number of
    updates and returns an iterator that starts there. `run` raises an InnerloopError if the iterator ends or yields
    anything but a meta-batch of tasks.
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
                with a leading axis of length `meta_batch`; with several processes, of the tasks of this one. A function
                `batches(step)` that returns such an iterable is called with the number of updates of the state that
                `run` is given, at first and whenever that state is not the one that `run` returned last.
            meta_batch: as for `OuterLoop`.
            chunk: as for `OuterLoop`.
            mesh: as for `OuterLoop`.

        Raises:
            InnerloopError: the meta-batch is no multiple of devices x chunk, or `batches` cannot be iterated over.
        """
        super().__init__(algorithm, optimizer, meta_batch, chunk, mesh)
        self.read, self.follows = 0, None
        self.batches_from = None if isinstance(batches, Iterable) or not callable(batches) else batches
        self.batches = iter(()) if self.batches_from else _iterator(batches)

    @property
    def resumable(self) -> bool:
        """Whether meta-batches are a function of the number of updates."""
        return self.batches_from is not None

    def first(self) -> Task | None:
        """The first meta-batch, by a call of the function of its own; None of an iterator, which it would consume."""
        batch = next(_iterator(self.batches_from(0)), None) if self.batches_from else None
        return None if batch is None else _as_task(batch, self.own)

    @property
    def own(self) -> int:
        """Tasks of a meta-batch that are of this process."""
        tasks = own_tasks(self.mesh, self.meta_batch)
        return tasks.stop - tasks.start

    def ran(self, steps: int, state: MetaState, info: StepInfo) -> None:
        """Whoever goes on with this state gets what comes next."""
        super().ran(steps, state, info)
        self.follows = state.step

    def block(self, state: MetaState, steps: int) -> Task:
        """The next `steps` meta-batches, on the devices."""
        if self.batches_from and state.step is not self.follows:  # compares objects: values would block
            self.read, self.batches = 0, _iterator(self.batches_from(int(state.step)))
        found = [_as_task(batch, self.own) for batch in islice(self.batches, steps)]
        self.read += len(found)
        if len(found) < steps:
            wrong = f"the iterator ended after {self.read} meta-batches"
            raise InnerloopError(WHO, wrong, do="repeat the data, by itertools.cycle for example")
        return put_split(jax.tree.map(lambda *x: np.stack(x), *found), self.split)


def _iterator(batches: object) -> Iterator[object]:
    """Raise InnerloopError for what cannot be iterated over."""
    if not isinstance(batches, Iterable):
        do = "pass a DataLoader, a generator or a list of tasks"
        raise InnerloopError(WHO, "`batches` must be iterable", got=type(batches).__name__, do=do)
    return iter(batches)


def _as_task(batch: object, tasks: int) -> Task:
    """A meta-batch as NumPy arrays. Raises InnerloopError unless it is one of so many tasks."""
    if not isinstance(batch, tuple | list) or len(batch) != 2:
        do = "yield innerloop.Task(support, query), each leaf with a leading axis of tasks"
        raise InnerloopError(WHO, "`batches` must yield tasks", got=f"a {type(batch).__name__}", do=do)
    task: PyTree = jax.tree.map(np.asarray, Task(*batch))
    for leaf in jax.tree.leaves(task):
        if leaf.ndim == 0 or len(leaf) != tasks:
            wrong = f"every leaf must have a leading axis of {tasks} tasks"
            raise InnerloopError(WHO, wrong, got=f"shape {leaf.shape}", do="stack the tasks of a meta-batch")
    return task
