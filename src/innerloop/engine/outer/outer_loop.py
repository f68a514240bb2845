r"""The outer loop: update the meta-parameters by the mean meta-gradient of a meta-batch of tasks.

    theta <- optimizer(theta, mean over tasks of g(theta, task))

Each device processes its share of the tasks in vectorised chunks and keeps only the running sum of their gradients.
"""

from collections.abc import Callable, Iterator
from functools import cached_property
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh
from jaxtyping import Array, PRNGKeyArray, PyTree

from innerloop.engine.algorithm import Algorithm, MetaInfo, check_is_algorithm, loss_key
from innerloop.engine.checks.learning_check import check_learns
from innerloop.engine.diagnosis import Layers, Place, first_nonfinite
from innerloop.engine.distribution import check_distribution, split_arrays
from innerloop.engine.meta_state import MetaState, restore_to_device
from innerloop.engine.optimizer import apply_optimizer, check_optimizer
from innerloop.engine.outer.chunking import mean_in_chunks
from innerloop.engine.outer.counted_scan import scan_up_to
from innerloop.engine.outer.mesh_loop import MeshLoop
from innerloop.engine.outer.persistent_adam import WithMoments, check_outer_optimizer
from innerloop.engine.outer.task_draws import draw_and_fetch, steps_ahead, task_keys
from innerloop.engine.pytree import global_norm, shapes_only
from innerloop.engine.types import Params, Task, TaskDistribution
from innerloop.parallel.compile_once import compile_once
from innerloop.parallel.mesh import local_copy, mean_over_devices, replicate
from innerloop.parallel.param_sharding import constrain_sharding, model_shards_of


class StepInfo(NamedTuple):
    """What is logged, as means over the meta-batch and stacked over updates.

    Attributes:
        outer_loss: `[updates]`.
        inner_losses: the support loss before each inner step, `[updates, steps]`.
        grad_norm: the Euclidean norm of the mean meta-gradient, `[updates]`.
        aux: the auxiliary outputs of the loss, each leaf `[updates, ...]` (None if it has none).
    """

    outer_loss: Array
    inner_losses: Array
    grad_norm: Array
    aux: PyTree = None

    __repr__ = shapes_only


class GradientLoop(MeshLoop):
    """An outer loop that descends the mean meta-gradient of an algorithm, wherever its tasks come from."""

    def __init__(
        self,
        algorithm: Algorithm,
        optimizer: optax.GradientTransformation,
        meta_batch: int,
        chunk: int | None,
        mesh: Mesh | None,
    ):
        who = type(self).__name__
        check_is_algorithm(algorithm, who)
        check_optimizer(optimizer, who)
        super().__init__(optimizer.init, meta_batch, chunk, mesh)
        self.algorithm, self.optimizer = algorithm, optimizer

    def init(self, params: Params, key: PRNGKeyArray) -> MetaState:
        """The state before the first update.

        Args:
            params: the parameters of a model.
            key: determines which tasks are drawn.

        Raises:
            InnerloopError: if a parameter is not a float array, or the optimizer does not fit the parameters
                or the inner rule.
        """
        return self.start(self.algorithm.init(params), key)

    def start(self, meta_params: Params, key: PRNGKeyArray) -> MetaState:
        """The state before the first update, from meta-parameters. Raises InnerloopError as in `init`."""
        state = super().start(meta_params, key)
        if isinstance(meta_params, WithMoments):
            check_outer_optimizer(self.optimizer, state.params)
        return state

    def update(
        self, state: MetaState, items: PyTree, task_of: Callable[[PyTree], Task]
    ) -> tuple[MetaState, StepInfo]:
        """Inside the mesh: one update on this device's tasks, each made by `task_of` from one of `items`."""
        algorithm = self.algorithm.at(state.step)
        keys = jax.vmap(loss_key)(self.device_keys(state.key, state.step)) if algorithm.random else None

        def over_devices(params: Params) -> tuple[Params, MetaInfo]:
            one = lambda item: algorithm.meta_grad(params, task_of(item[0]), key=item[1])
            mean = mean_in_chunks(one, (items, keys), self.chunk)
            return mean_over_devices(mean, sharded=model_shards_of(self.mesh) > 1)

        grads, info = over_devices(state.params)
        value_of = lambda params: over_devices(params)[1].outer_loss
        params, opt_state = apply_optimizer(
            self.optimizer, grads, state.opt_state, state.params, info.outer_loss, value_of
        )
        seen = StepInfo(info.outer_loss, info.inner_losses, global_norm(grads), info.aux)
        new = MetaState(
            constrain_sharding(params, self.mesh),
            constrain_sharding(opt_state, self.mesh),
            state.key,
            state.step + 1,
        )
        return new, constrain_sharding(seen, self.mesh)

    def locate(
        self, before: MetaState, good: int, layers: Layers | None = None, max_steps: int | None = None
    ) -> Place | None:
        """In which task, and where, the update after `good` finite ones became non-finite."""
        try:
            tasks = self.tasks_of_update(before.key, jnp.asarray(before.step + good))
            if tasks is None:
                return super().locate(before, good)
            state = restore_to_device(before)
            if good:
                state, _ = self.run(state, good, on_nonfinite="ignore", max_steps=max_steps)
            params = jax.tree.map(lambda x: jnp.asarray(np.asarray(local_copy(x))), state.params)
            return first_nonfinite(self.algorithm.at(state.step), params, tasks, layers)
        except Exception:  # whatever goes wrong here, the divergence itself must be reported
            return None

    def tasks_of_update(self, key: PRNGKeyArray, step: Array) -> Iterator[Task] | None:
        """The tasks of one update, drawn again one at a time; None if that is impossible."""
        return None


class OuterLoop(GradientLoop):
    """Trains meta-parameters: `state = loop.init(params, key)`, then `state, info = loop.run(state, steps)`."""

    def __init__(
        self,
        algorithm: Algorithm,
        optimizer: optax.GradientTransformation,
        tasks: TaskDistribution,
        *,
        meta_batch: int,
        chunk: int | None = None,
        mesh: Mesh | None = None,
    ):
        """Nothing is compiled before `run`.

        Args:
            algorithm: the meta-gradient of one task.
            optimizer: any Optax optimiser.
            tasks: the distribution of training tasks.
            meta_batch: the number of tasks per update.
            chunk: the number of tasks vectorised at a time on each device (None: its whole share).
            mesh: the devices (None: as many as divide the meta-batch evenly).

        Raises:
            InnerloopError: if the meta-batch is not a multiple of devices x chunk, or the algorithm or
                optimizer is not one.
        """
        super().__init__(algorithm, optimizer, meta_batch, chunk, mesh)
        self.tasks = tasks
        self.granularities: dict[int, int] = {}
        self.held, self.with_arrays = split_arrays(tasks)

    def check_tasks(self, key: PRNGKeyArray) -> None:
        """Raise InnerloopError unless this is a key, and the tasks are drawn from it."""
        check_distribution(self.with_arrays(self.arrays), key, type(self).__name__)

    def start(self, meta_params: Params, key: PRNGKeyArray) -> MetaState:
        """The state before the first update, from meta-parameters. Raises InnerloopError as in `init`."""
        state = super().start(meta_params, key)
        tasks = self.with_arrays(self.arrays)
        check_learns(self.algorithm, state.params, tasks, key, type(self).__name__, outer=True)
        return state

    def tasks_of_update(self, key: PRNGKeyArray, step: Array) -> Iterator[Task]:
        """The tasks of one update, drawn again one at a time."""
        draw = compile_once(lambda held, key: self.with_arrays(held).sample(key))
        for one in task_keys(key, step, self.meta_batch):
            yield draw(self.held, one)

    def updates(
        self, state: MetaState, steps: int, count: Array | None, data: PyTree
    ) -> tuple[MetaState, StepInfo]:
        """Inside the mesh: `steps` updates, or the first `count` of them; small tasks are drawn for several at once."""
        tasks = self.with_arrays(data)
        ahead = steps_ahead(tasks.sample, self.device_keys(state.key, state.step), steps)
        # Tasks too large to hold in memory together are fetched one chunk at a time.
        draw, fetch = (tasks.sample, lambda task: task) if ahead > 1 else draw_and_fetch(tasks)

        def some(state: MetaState, _: None) -> tuple[MetaState, StepInfo]:
            keys = jax.vmap(self.device_keys, (None, 0))(state.key, state.step + jnp.arange(ahead))
            one = lambda state, items: self.update(state, items, fetch)
            return jax.lax.scan(one, state, jax.vmap(jax.vmap(draw))(keys))

        times = None if count is None else count // ahead
        state, info = scan_up_to(some, state, times, steps // ahead)
        return state, jax.tree.map(lambda x: x.reshape(steps, *x.shape[2:]), info)

    def granularity(self, key: PRNGKeyArray, max_steps: int) -> int:
        """The fewest updates that one program for up to `max_steps` takes: those whose tasks are drawn at once."""
        if max_steps not in self.granularities:
            tasks = self.with_arrays(self.arrays)
            keys = jax.eval_shape(lambda key: jax.random.split(key, self.share), key)
            self.granularities[max_steps] = steps_ahead(tasks.sample, keys, max_steps)
        return self.granularities[max_steps]

    @cached_property
    def arrays(self) -> PyTree:
        """The arrays of the distribution, on every device."""
        return replicate(self.held, self.mesh)

    def data(self, state: MetaState, steps: int) -> PyTree:
        """The arrays of the distribution: if they were constants, they would be compiled into the program."""
        return self.arrays
