r"""The outer loop: the only file that knows there is more than one task.

    theta <- optimizer(theta, mean over tasks of g(theta, task))

Tasks are split over the devices of a mesh axis `tasks` (the cores of a CPU count), and large models over a second
axis `model`; on each device they are taken in vectorised chunks, and only the running sum of their gradients is kept.
Many meta-steps are one scan, so the host is not asked between them.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from functools import cached_property
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh
from jaxtyping import Array, PRNGKeyArray, PyTree

from innerloop.engine.algorithm import Algorithm, MetaInfo
from innerloop.engine.chunking import divisor_up_to, mean_in_chunks, split_evenly
from innerloop.engine.pytree import check_trainable, global_norm
from innerloop.engine.types import Params, Task, TaskDistribution, TwoStageSampler
from innerloop.errors import InnerloopError
from innerloop.parallel.mesh import EVERYWHERE, mean_over_devices, place, task_mesh
from innerloop.parallel.param_sharding import cut, model_shards_of, on_mesh, place_cut


class MetaState(NamedTuple):
    """What the next meta-step needs, and nothing else. Task keys are folded from `key` and `step`."""

    params: Params
    opt_state: optax.OptState
    key: PRNGKeyArray
    step: Array


class StepInfo(NamedTuple):
    """Means over one meta-batch, stacked over meta-steps."""

    outer_loss: Array
    inner_losses: Array
    grad_norm: Array


AHEAD_BYTES = 2_000_000
"""Small tasks are drawn for so many meta-steps at once that they stay in a core's cache: random numbers for one
meta-step at a time cost as much as the step of a small network."""


def _steps_ahead(draw: Callable[[Array], PyTree], keys: Array, steps: int) -> int:
    """For how many meta-steps, a divisor of `steps`, `AHEAD_BYTES` hold all tasks that `keys` draw for one."""
    leaves = jax.tree.leaves(jax.eval_shape(jax.vmap(draw), keys))
    size = sum(leaf.size * leaf.dtype.itemsize for leaf in leaves)
    return divisor_up_to(steps, AHEAD_BYTES // max(size, 1))


def _draw_and_fetch(tasks: TaskDistribution) -> tuple[Callable[[PyTree], PyTree], Callable[[PyTree], Task]]:
    """What to draw for all tasks of a meta-step at once, and how each task comes of it: at least of its key."""
    if isinstance(tasks, TwoStageSampler) and type(tasks).sample is TwoStageSampler.sample:
        return tasks.draw, tasks.fetch
    return (lambda key: key), tasks.sample  # also where a subclass has a `sample` of its own


def task_keys(key: PRNGKeyArray, step: Array, meta_batch: int) -> Array:
    """The keys of one meta-step's tasks, `[tasks]`: a function of the run's key and the step number alone."""
    return jax.random.split(jax.random.fold_in(key, step), meta_batch)


def _outer_update(
    optimizer: optax.GradientTransformation, state: MetaState, mean: tuple[Params, MetaInfo], mesh: Mesh
) -> tuple[MetaState, StepInfo]:
    """One meta-step from each device's mean over its tasks; runs inside the mesh."""
    grads, info = mean_over_devices(mean, cut=model_shards_of(mesh) > 1)
    updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
    params = optax.apply_updates(state.params, updates)
    seen = cut(StepInfo(info.outer_loss, info.inner_losses, global_norm(grads)), mesh)
    return MetaState(cut(params, mesh), cut(opt_state, mesh), state.key, state.step + 1), seen


def _check_unconsumed(state: MetaState) -> None:
    """Raise InnerloopError for a state whose arrays an earlier run was given to write over."""
    if any(isinstance(leaf, jax.Array) and leaf.is_deleted() for leaf in jax.tree.leaves(state)):
        do = "go on with the state that `run` returned"
        raise InnerloopError("OuterLoop.run", "this state was consumed by an earlier run", do=do)


class MeshLoop(ABC):
    """States and compiled programs of an outer loop, whatever one update is made of."""

    def __init__(
        self,
        init_optimizer: Callable[[Params], optax.OptState],
        meta_batch: int,
        chunk: int | None = None,
        mesh: Mesh | None = None,
    ):
        self.init_optimizer, self.meta_batch = init_optimizer, meta_batch
        self.mesh = task_mesh(meta_batch) if mesh is None else mesh
        self.share, self.chunk = split_evenly(meta_batch, self.mesh, chunk)
        self.programs: dict[int, Callable[..., tuple[MetaState, PyTree]]] = {}

    def start(self, meta_params: Params, key: PRNGKeyArray) -> MetaState:
        """The state before the first update, from meta-parameters: those of a trained model, for example."""
        check_trainable(meta_params, "OuterLoop.init")
        params = jax.tree.map(jnp.array, meta_params)  # a copy: `run` consumes the state that it is given
        return MetaState(params, self.init_optimizer(params), jnp.array(key), jnp.zeros((), jnp.int32))

    def run(self, state: MetaState, steps: int) -> tuple[MetaState, PyTree]:
        """`steps` updates as one compiled call, compiled once for each number of them.

        The state is consumed: its arrays are written over. Raises InnerloopError for one that was consumed before.
        """
        _check_steps(steps)
        _check_unconsumed(state)
        if steps not in self.programs:
            self.programs[steps] = self.program(steps)
        data = self.data(state, steps)
        return self.programs[steps](place_cut(state, self.mesh), *data)

    @abstractmethod
    def program(self, steps: int) -> Callable[..., tuple[MetaState, PyTree]]:
        """The compiled run of `steps` updates: `program(state, *data)`."""

    def data(self, state: MetaState, steps: int) -> tuple[PyTree, ...]:
        """What a program is given beside the state."""
        return ()

    def own_keys(self, key: PRNGKeyArray, step: Array) -> Array:
        """Inside the mesh: the keys of this device's tasks."""
        keys = task_keys(key, step, self.meta_batch)
        return jax.lax.dynamic_slice_in_dim(keys, jax.lax.axis_index("tasks") * self.share, self.share)


def _check_steps(steps: int) -> None:
    """Raise InnerloopError for a run of no updates."""
    if steps < 1:
        raise InnerloopError("OuterLoop.run", "`steps` must be 1 or more", got=steps)


class GradientLoop(MeshLoop):
    """An outer loop that descends an algorithm's mean gradient, wherever its tasks come from."""

    def __init__(
        self,
        algorithm: Algorithm,
        optimizer: optax.GradientTransformation,
        meta_batch: int,
        chunk: int | None,
        mesh: Mesh | None,
    ):
        super().__init__(optimizer.init, meta_batch, chunk, mesh)
        self.algorithm, self.optimizer = algorithm, optimizer

    def init(self, params: Params, key: PRNGKeyArray) -> MetaState:
        """The state before the first update, from a model's parameters."""
        return self.start(self.algorithm.init(params), key)

    def update(
        self, state: MetaState, items: PyTree, task_of: Callable[[PyTree], Task]
    ) -> tuple[MetaState, StepInfo]:
        """Inside the mesh: one update on this device's tasks, of which `items` holds what `task_of` makes them."""
        one = lambda item: self.algorithm.meta_grad(state.params, task_of(item))
        return _outer_update(self.optimizer, state, mean_in_chunks(one, items, self.chunk), self.mesh)


class OuterLoop(GradientLoop):
    """How the meta-parameters are learnt: an algorithm's gradients, an optimiser, tasks to draw from."""

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
        """An outer loop; nothing is compiled before `run`.

        Args:
            algorithm: the meta-gradient of one task.
            optimizer: any Optax optimiser.
            tasks: the distribution of training tasks.
            meta_batch: tasks of one update.
            chunk: tasks vectorised at a time on each device (None: all of its share).
            mesh: the devices (None: as many as divide the meta-batch evenly).

        Raises InnerloopError if the meta-batch does not divide over devices and chunks.
        """
        super().__init__(algorithm, optimizer, meta_batch, chunk, mesh)
        self.tasks = tasks

    def program(self, steps: int) -> Callable[..., tuple[MetaState, StepInfo]]:
        """`steps` updates; tasks are drawn for several updates at once where they are small."""
        static = eqx.filter(self.tasks, eqx.is_array, inverse=True)

        def many(state: MetaState, arrays: PyTree) -> tuple[MetaState, StepInfo]:
            tasks = eqx.combine(arrays, static)
            ahead = _steps_ahead(tasks.sample, self.own_keys(state.key, state.step), steps)
            # Tasks too large to be kept are fetched one chunk at a time.
            draw, fetch = (tasks.sample, lambda task: task) if ahead > 1 else _draw_and_fetch(tasks)

            def some(state: MetaState, _: None) -> tuple[MetaState, StepInfo]:
                keys = jax.vmap(self.own_keys, (None, 0))(state.key, state.step + jnp.arange(ahead))
                one = lambda state, items: self.update(state, items, fetch)
                return jax.lax.scan(one, state, jax.vmap(jax.vmap(draw))(keys))

            state, info = jax.lax.scan(some, state, None, length=steps // ahead)
            return state, jax.tree.map(lambda x: x.reshape(steps, *x.shape[2:]), info)

        return on_mesh(many, self.mesh, EVERYWHERE, EVERYWHERE, donate_argnums=0)

    @cached_property
    def arrays(self) -> PyTree:
        """The arrays of the distribution, on every device."""
        return place(eqx.filter(self.tasks, eqx.is_array), self.mesh)

    def data(self, state: MetaState, steps: int) -> tuple[PyTree, ...]:
        """Arrays of the distribution are arguments: as constants of the program they would be compiled into it."""
        return (self.arrays,)
