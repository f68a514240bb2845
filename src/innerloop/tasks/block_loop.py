"""An outer loop over blocks of meta-batches that the host puts on the devices."""

from abc import abstractmethod
from collections import deque

import jax
import optax
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, PyTree

from innerloop.engine.algorithm import Algorithm
from innerloop.engine.meta_state import MetaState
from innerloop.engine.outer.outer_loop import GradientLoop, StepInfo
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
        self.last: tuple[Array, Array] | None = None

    @abstractmethod
    def block(self, state: MetaState, steps: int, follows: bool) -> Task:
        """The tasks of the next `steps` updates, `[steps, tasks, ...]`, on the devices.

        Args:
            state: the state before these updates.
            steps: the number of updates.
            follows: whether the state is the result of the last block.
        """

    def prepare(self, task: Task) -> Task:
        """Preprocess a task on the device, before adaptation."""
        return task

    def updates(
        self, state: MetaState, steps: int, count: Array | None, data: PyTree
    ) -> tuple[MetaState, StepInfo]:
        """Inside the mesh: one update for every meta-batch of a block; there is no program for several lengths."""
        return jax.lax.scan(lambda state, tasks: self.update(state, tasks, self.prepare), state, data)

    def after_run(self, steps: int, state: MetaState, info: StepInfo) -> None:
        """Record that another block is in flight, and remember this state: a `run` from it gets the next block."""
        self.in_flight.append(info.outer_loss)
        self.last = state.key, state.step

    def follows(self, state: MetaState) -> bool:
        """Whether `run` returned this state last; compares identities, since comparing values would block."""
        return self.last is not None and state.key is self.last[0] and state.step is self.last[1]

    def data(self, state: MetaState, steps: int) -> Task:
        """The tasks of the next `steps` updates; waits until at most one earlier block is unfinished."""
        follows = self.follows(state)
        # Forget that state until these updates are done: if they fail, a repeated call starts again from its own.
        self.last = None
        tasks = self.block(state, steps, follows)
        while len(self.in_flight) > 1:
            self.in_flight.popleft().block_until_ready()
        return tasks
