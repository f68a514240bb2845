"""Episodes from examples that do not fit on the device, prefetched from a memory map.

The rows of an episode are drawn by the sampler of `Episodes` with the same keys, so a streamed run sees the same tasks
as one whose examples are on the device. What is read depends only on the key and step of the state, so a run can stop
and resume at any step. A thread reads the next blocks of meta-batches and puts them on the device while it computes.

Memory: at most `prefetch + 3` blocks of `steps * meta_batch` episodes on the host and on the device: those waiting, one
being read, and two in use. The map is never read into memory as a whole.
"""

import os
from collections.abc import Iterator
from operator import itemgetter

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh
from jaxtyping import Array, PRNGKeyArray, PyTree

from innerloop.engine.algorithm import Algorithm
from innerloop.engine.meta_state import MetaState
from innerloop.engine.outer.task_draws import task_keys
from innerloop.engine.types import Batch, Task
from innerloop.errors import InnerloopError, check_count
from innerloop.parallel.mesh import from_local_shards, local_copy, local_tasks, on_host
from innerloop.tasks.block_loop import BlockLoop
from innerloop.tasks.class_arrays import ClassArrays
from innerloop.tasks.device_examples import unit_scale
from innerloop.tasks.episodes import EpisodeRows
from innerloop.tasks.prefetch import Prefetcher

COPY_BYTES = 200_000
"""Bytes copied at a time, few enough to stay in a core's cache."""


class StreamedEpisodes:
    """N-way K-shot episodes over class arrays that stay on the host, usually an `np.memmap`.

    Unsigned bytes are transferred as they are and scaled to [0, 1] on the device.
    """

    def __init__(self, arrays: ClassArrays, ways: int, shots: int, queries: int):
        """Prepare the sampler; no examples are read.

        Args:
            arrays: the classes.
            ways: classes per episode.
            shots: support examples per class.
            queries: query examples per class.

        Raises:
            InnerloopError: if there are too few classes, or too few examples of a class.
        """
        with on_host():
            self.sampler = EpisodeRows(arrays, ways, shots, queries)
        self.examples = arrays.examples
        self.draw = jax.jit(self.draw_tasks, static_argnums=2)

    def draw_tasks(self, key: PRNGKeyArray, step: Array, meta_batch: int) -> Task:
        """The rows and labels of the tasks of one meta-step, `[tasks, examples]` each."""
        return jax.vmap(self.sampler.sample)(task_keys(key, step, meta_batch))

    def read(
        self, key: PRNGKeyArray, first: int, steps: int, meta_batch: int, own: slice = slice(None)
    ) -> Task:
        """Read the episodes of `steps` meta-steps, starting with number `first`.

        Args:
            key: the key of the run.
            first: the first meta-step.
            steps: the number of meta-steps.
            meta_batch: tasks per meta-step.
            own: the tasks of each meta-batch to read.

        Returns:
            Inputs `[steps, tasks, examples, height, width, channels]` as stored, targets `[steps, tasks, examples]`.

        Raises:
            InnerloopError: if the memory map's file has been truncated.
        """
        with on_host() as host:
            key = jax.device_put(key, host)
            drawn = [self.draw(key, np.int32(first + i), meta_batch) for i in range(steps)]
        rows = jax.tree.map(lambda *step: np.stack(step)[:, own], *drawn)
        return Task(*(Batch(self.fetch(batch.inputs), batch.targets) for batch in rows))

    def fetch(self, rows: np.ndarray) -> np.ndarray:
        """The examples of `rows`, an array of row indices of any shape, copied from the map in file order."""
        _check_whole(self.examples)
        flat = rows.reshape(-1)
        found = np.empty((len(flat), *self.examples.shape[1:]), self.examples.dtype)
        order = np.argsort(flat, kind="stable")  # ascending, so that the disk is read forwards
        many = max(COPY_BYTES * len(flat) // max(found.nbytes, 1), 1)
        for first in range(0, len(order), many):
            places = order[first : first + many]
            found[places] = self.examples[flat[places]]
        return found.reshape(*rows.shape, *found.shape[1:])


def _check_whole(examples: PyTree) -> None:
    """Raise InnerloopError if a memory map's file was truncated: reading beyond its end would kill the process.

    A deleted file does no harm, since the map keeps its contents.
    """
    if isinstance(getattr(examples, "base", None), np.memmap):
        examples = examples.base  # a view of a map has its own size, but the map's offset in the file
    path = getattr(examples, "filename", None)
    if path is None or not os.path.exists(path):
        return
    missing = examples.offset + examples.nbytes - os.path.getsize(path)
    if missing > 0:
        hint = "put the file back, then `resume`"
        raise InnerloopError(str(path), "was truncated while in use", got=f"{missing} bytes less", hint=hint)


class StreamedOuterLoop(BlockLoop):
    """`OuterLoop` for streamed episodes: `with StreamedOuterLoop(...) as loop: state, info = loop.run(state, steps)`.

    A thread prefetches for `run`; leaving the `with` block stops it.
    """

    def __init__(
        self,
        algorithm: Algorithm,
        optimizer: optax.GradientTransformation,
        episodes: StreamedEpisodes,
        *,
        meta_batch: int,
        chunk: int | None = None,
        mesh: Mesh | None = None,
        prefetch: int = 2,
    ):
        """Nothing is read before `run`, which raises the errors of `StreamedEpisodes.read`.

        Args:
            algorithm: as for `OuterLoop`.
            optimizer: as for `OuterLoop`.
            episodes: the training episodes.
            meta_batch: as for `OuterLoop`.
            chunk: as for `OuterLoop`.
            mesh: as for `OuterLoop`.
            prefetch: number of blocks of `steps * meta_batch` episodes that wait on the device.

        Raises:
            InnerloopError: if the meta-batch is not a multiple of devices x chunk, or `prefetch` is below 1.
        """
        check_count("StreamedOuterLoop", "prefetch", prefetch)
        super().__init__(algorithm, optimizer, meta_batch, chunk, mesh)
        self.episodes, self.prefetch = episodes, prefetch
        self.ahead: Prefetcher[Task] | None = None
        self.block_steps = 0

    def __enter__(self) -> "StreamedOuterLoop":
        return self

    def __exit__(self, *error: object) -> None:
        self.stop()

    def prepare(self, task: Task) -> Task:
        """Scale bytes to [0, 1] on the device."""
        return Task(*(Batch(unit_scale(batch.inputs), batch.targets) for batch in task))

    def tasks_of_update(self, key: PRNGKeyArray, step: Array) -> Iterator[Task]:
        """The tasks of one update, read again."""
        read = self.episodes.read(key, int(step), 1, self.meta_batch)
        block = self.prepare(jax.tree.map(jnp.asarray, read))
        for number in range(self.meta_batch):
            yield jax.tree.map(itemgetter((0, number)), block)

    def block(self, state: MetaState, steps: int, follows: bool) -> Task:
        """The episodes of the next `steps` updates."""
        if self.ahead is None or not follows or steps != self.block_steps:
            self.stop()
            self.ahead, self.block_steps = self._read_ahead(state, steps), steps
        return self.ahead.next()

    def _read_ahead(self, state: MetaState, steps: int) -> Prefetcher[Task]:
        """Start to read blocks of `steps` updates, from the step of this state on."""
        # Copy the key, since the state's buffers will be donated.
        key, first = jnp.array(local_copy(state.key)), int(state.step)
        # The thread must not refer to this loop, or it would outlive it.
        episodes, meta_batch, split = self.episodes, self.meta_batch, self.split
        own = local_tasks(self.mesh, meta_batch)

        def block(number: int) -> Task:
            tasks = episodes.read(key, first + number * steps, steps, meta_batch, own)
            return from_local_shards(tasks, split)

        return Prefetcher(block, self.prefetch)

    def stop(self) -> None:
        """Stop prefetching; a later `run` starts again."""
        if self.ahead is not None:
            self.ahead.stop()
            self.ahead = None
