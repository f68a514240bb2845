"""An outer loop over blocks of meta-batches that the host puts on the devices."""

from abc import abstractmethod
from collections import deque

import jax
import optax
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, PyTree

from innerloop.engine.algorithm import Algorithm
from innerloop.engine.outer import GradientLoop, MetaState, StepInfo
from innerloop.engine.types import Task


class BlockLoop(GradientLoop):
    """An outer loop that takes its tasks from `block`; the host prepares the next block while the device computes.

    At most two blocks are in flight: the one being computed and the next.
    """

    data_spec = PartitionSpec(None, "tasks")

    def __init__(
        self,
        algorithm: Algorithm,
        optimizer: optax.GradientTransformation,
        meta_batch: int,
        chunk: int | None,
        mesh: Mesh | None,
    ):
        super().__init__(algorithm, optimizer, meta_batch, chunk, mesh)
        self.split = NamedSharding(self.mesh, self.data_spec)
        self.in_flight: deque[Array] = deque()

    @abstractmethod
    def block(self, state: MetaState, steps: int) -> Task:
        """The tasks of the next `steps` updates, `[steps, tasks, ...]`, on the devices."""

    def prepare(self, task: Task) -> Task:
        """Preprocess a task on the device, before adaptation."""
        return task

    def updates(
        self, state: MetaState, steps: int, count: Array | None, data: PyTree
    ) -> tuple[MetaState, StepInfo]:
        """Inside the mesh: one update for every meta-batch of a block; there is no program for several lengths."""
        return jax.lax.scan(lambda state, tasks: self.update(state, tasks, self.prepare), state, data)

    def after_run(self, steps: int, state: MetaState, info: StepInfo) -> None:
        """Record that another block is in flight."""
        self.in_flight.append(info.outer_loss)

    def data(self, state: MetaState, steps: int) -> Task:
        """The tasks of the next `steps` updates; waits until at most one earlier block is unfinished."""
        tasks = self.block(state, steps)
        while len(self.in_flight) > 1:
            self.in_flight.popleft().block_until_ready()
        return tasks
