"""Episodes from examples that do not fit on the device, read ahead from a memory map.

The rows of an episode are drawn by the very sampler of `Episodes`, with the same keys, so a run that streams sees
the same tasks as one whose examples lie on the device. What is read is a function of the state's key and step alone:
a run can start, stop and go on at any step. A thread reads the next blocks of meta-batches and puts them on the
device while it computes.

Memory: at most `prefetch + 3` blocks of `steps * meta_batch` episodes, on the host and on the device alike: those
that wait, one being made, and two that were handed out. The map itself is never read whole.
"""

import os
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, PRNGKeyArray

from innerloop.algorithms.algorithm import Algorithm
from innerloop.datasets.arrays import ClassArrays
from innerloop.errors import InnerloopError
from innerloop.mesh import on_the_host, own_copy, own_tasks, put_split, task_mesh
from innerloop.outer import (
    MetaState,
    StepInfo,
    mean_in_chunks,
    on_mesh,
    outer_update,
    split_evenly,
    task_keys,
)
from innerloop.parts import place_cut
from innerloop.task import Batch, Task
from innerloop.tasks.ahead import ReadAhead
from innerloop.tasks.episodes import EpisodeRows
from innerloop.tasks.resident import unit_scale

COPY_BYTES = 200_000
"""Examples are copied so many bytes at a time, which stay in a core's cache between the map and their place."""


class StreamedEpisodes:
    """N-way K-shot episodes over class arrays that stay on the host, usually an `np.memmap`.

    ways, shots, queries: as for `Episodes`. Bytes travel as bytes and are scaled to [0, 1] on the device.
    """

    def __init__(self, arrays: ClassArrays, ways: int, shots: int, queries: int):
        """Raises InnerloopError when there are too few classes, or too few examples of a class."""
        self.examples = arrays.examples
        with on_the_host():
            self.sampler = EpisodeRows(arrays, ways, shots, queries)
        self.draw = jax.jit(self.draw_tasks, static_argnums=2)

    def draw_tasks(self, key: PRNGKeyArray, step: Array, meta_batch: int) -> Task:
        """Rows and labels of one meta-step's tasks, `[tasks, examples]` each."""
        return jax.vmap(self.sampler.sample)(task_keys(key, step, meta_batch))

    def read(
        self, key: PRNGKeyArray, first: int, steps: int, meta_batch: int, own: slice = slice(None)
    ) -> Task:
        """Episodes of the meta-steps first..first+steps, read now; of each meta-batch the tasks `own` alone.

        Inputs `[steps, tasks, examples, height, width, channels]` as stored, targets `[steps, tasks, examples]`.
        """
        with on_the_host() as host:
            key = jax.device_put(key, host)
            drawn = [self.draw(key, np.int32(first + i), meta_batch) for i in range(steps)]
        rows = jax.tree.map(lambda *step: np.stack(step)[:, own], *drawn)
        return Task(*(Batch(self.fetch(batch.inputs), batch.targets) for batch in rows))

    def fetch(self, rows: np.ndarray) -> np.ndarray:
        """The examples of `rows`, copied out of the map in the order of the file."""
        check_whole(self.examples)
        flat = rows.reshape(-1)
        found = np.empty((len(flat), *self.examples.shape[1:]), self.examples.dtype)
        order = np.argsort(flat, kind="stable")  # ascending: a disk reads forwards
        many = max(COPY_BYTES * len(flat) // max(found.nbytes, 1), 1)
        for first in range(0, len(order), many):
            places = order[first : first + many]
            found[places] = self.examples[flat[places]]
        return found.reshape(*rows.shape, *found.shape[1:])


def check_whole(examples: Any) -> None:
    """Raise InnerloopError if the file under a memory map was cut short: reading beyond its end kills the process.

    A file that was deleted is no trouble, since the map keeps it.
    """
    path = getattr(examples, "filename", None)
    if path is None or not os.path.exists(path):
        return
    missing = examples.offset + examples.nbytes - os.path.getsize(path)
    if missing > 0:
        do = "put the file back, then --resume"
        raise InnerloopError(
            str(path), "was cut short while it was in use", got=f"{missing} bytes less", do=do
        )


def scaled(task: Task) -> Task:
    """The task with bytes scaled to [0, 1]."""
    return Task(*(Batch(unit_scale(batch.inputs), batch.targets) for batch in task))


@contextmanager
def streamed_meta_steps(
    algorithm: Algorithm,
    optimizer: optax.GradientTransformation,
    episodes: StreamedEpisodes,
    *,
    meta_batch: int,
    steps: int,
    chunk: int | None = None,
    mesh: Mesh | None = None,
    prefetch: int = 2,
) -> Iterator[Callable[[MetaState], tuple[MetaState, StepInfo]]]:
    """`meta_steps` for streamed episodes: `with streamed_meta_steps(...) as run: state, info = run(state)`.

    `prefetch` blocks of `steps * meta_batch` episodes wait on the device. Leaving the block stops the reader. Raises
    InnerloopError for a meta-batch that does not divide over devices and chunks; `run` raises what the reader met.
    """
    if prefetch < 1 or steps < 1:
        raise InnerloopError("stream", "`prefetch` and `steps` must be 1 or more", got=(prefetch, steps))
    mesh = task_mesh(meta_batch) if mesh is None else mesh
    compiled = steps_on_batches(algorithm, optimizer, meta_batch, mesh, chunk)
    run = Run(compiled, episodes, meta_batch, steps, mesh, prefetch)
    try:
        yield run
    finally:
        run.stop()


def steps_on_batches(
    algorithm: Algorithm,
    optimizer: optax.GradientTransformation,
    meta_batch: int,
    mesh: Mesh,
    chunk: int | None = None,
) -> Callable[[MetaState, Task], tuple[MetaState, StepInfo]]:
    """`run(state, tasks) -> (state, info)`: one meta-step for each meta-batch of `tasks`, `[steps, tasks, ...]`.

    The tasks are split over the devices of the mesh. `run` consumes the state it is given.
    """
    chunk = split_evenly(meta_batch, mesh, chunk)[1]

    def one_step(state: MetaState, tasks: Task) -> tuple[MetaState, StepInfo]:
        one = lambda task: algorithm.meta_grad(state.params, scaled(task))
        return outer_update(optimizer, state, mean_in_chunks(one, tasks, chunk), mesh)

    many = lambda state, tasks: jax.lax.scan(one_step, state, tasks)
    return on_mesh(many, mesh, PartitionSpec(None, "tasks"))


class Run:
    """What `streamed_meta_steps` gives: a function of the state with a reader that runs ahead of it."""

    def __init__(
        self,
        compiled: Callable[[MetaState, Task], tuple[MetaState, StepInfo]],
        episodes: StreamedEpisodes,
        meta_batch: int,
        steps: int,
        mesh: Mesh,
        prefetch: int,
    ):
        self.compiled, self.episodes, self.prefetch = compiled, episodes, prefetch
        self.meta_batch, self.steps = meta_batch, steps
        self.mesh = mesh
        self.split = NamedSharding(mesh, PartitionSpec(None, "tasks"))
        self.ahead: ReadAhead | None = None
        self.last: tuple[Any, Any] | None = None
        self.in_flight: deque[Array] = deque()

    def __call__(self, state: MetaState) -> tuple[MetaState, StepInfo]:
        """`steps` meta-steps from `state`, which is consumed."""
        if self.ahead is None or not self.follows(state):
            self.restart(state)
        assert self.ahead is not None
        tasks = self.ahead.next()
        # At most two blocks are handed out: the one being computed and the one behind it.
        while len(self.in_flight) > 1:
            self.in_flight.popleft().block_until_ready()
        state, info = self.compiled(place_cut(state, self.mesh), tasks)
        self.last = (state.key, state.step)
        self.in_flight.append(info.outer_loss)
        return state, info

    def follows(self, state: MetaState) -> bool:
        """Whether `state` is where the last call ended; asked of the objects, since values would wait."""
        return self.last is not None and state.key is self.last[0] and state.step is self.last[1]

    def restart(self, state: MetaState) -> None:
        """Read ahead from this state's step."""
        self.stop()
        # A copy of the key: the state will be consumed.
        key, first = jnp.array(own_copy(state.key)), int(state.step)
        own = own_tasks(self.mesh, self.meta_batch)

        def block(number: int) -> Task:
            tasks = self.episodes.read(key, first + number * self.steps, self.steps, self.meta_batch, own)
            return put_split(tasks, self.split)

        self.ahead = ReadAhead(block, self.prefetch)

    def stop(self) -> None:
        """End the reader; a later call starts it again."""
        if self.ahead is not None:
            self.ahead.stop()
            self.ahead = None
