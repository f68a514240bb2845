r"""The outer loop: updates of the meta-parameters by the mean meta-gradient of a meta-batch of tasks.

    theta <- optimizer(theta, mean over tasks of g(theta, task))

Tasks are split over the devices of a mesh axis `tasks` (the cores of a CPU count), and large models over a second
axis `model`; on each device they are taken in vectorised chunks, and only the running sum of their gradients is kept.
Many meta-steps are one scan, with no return to the host in between.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from functools import cached_property
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh
from jaxtyping import Array, PRNGKeyArray, PyTree

from innerloop.engine.algorithm import Algorithm, MetaInfo
from innerloop.engine.chunking import divisor_up_to, mean_in_chunks, split_evenly
from innerloop.engine.counted_scan import scan_up_to
from innerloop.engine.pytree import check_trainable, global_norm
from innerloop.engine.types import Params, Task, TaskDistribution, TwoStageSampler
from innerloop.errors import InnerloopError
from innerloop.parallel.mesh import EVERYWHERE, mean_over_devices, place, task_mesh
from innerloop.parallel.param_sharding import cut, model_shards_of, on_mesh, place_cut


class MetaState(NamedTuple):
    """Everything that the next meta-step needs.

    Attributes:
        params: the meta-parameters.
        opt_state: the state of the outer optimiser.
        key: the key of the run; the keys of tasks are folded from it and `step`.
        step: the number of updates so far, int32.
    """

    params: Params
    opt_state: optax.OptState
    key: PRNGKeyArray
    step: Array


class StepInfo(NamedTuple):
    """What is logged, as means over the meta-batch and stacked over updates.

    Attributes:
        outer_loss: `[updates]`.
        inner_losses: the support loss before each inner step, `[updates, steps]`.
        grad_norm: the Euclidean norm of the mean meta-gradient, `[updates]`.
    """

    outer_loss: Array
    inner_losses: Array
    grad_norm: Array


AHEAD_BYTES = 2_000_000
"""Small tasks are drawn for several meta-steps at once, as many as fit in a core's cache: drawing them for one
meta-step at a time costs as much as the step of a small network."""


def _steps_ahead(draw: Callable[[Array], PyTree], keys: Array | jax.ShapeDtypeStruct, steps: int) -> int:
    """For how many meta-steps, a divisor of `steps`, the tasks fit in `AHEAD_BYTES`; `keys` are those of one."""
    leaves = jax.tree.leaves(jax.eval_shape(jax.vmap(draw), keys))
    size = sum(leaf.size * leaf.dtype.itemsize for leaf in leaves)
    return divisor_up_to(steps, AHEAD_BYTES // max(size, 1))


def _draw_and_fetch(tasks: TaskDistribution) -> tuple[Callable[[PyTree], PyTree], Callable[[PyTree], Task]]:
    """`draw`, applied to all keys of a meta-step at once, and `fetch`, which makes a task of what was drawn."""
    if isinstance(tasks, TwoStageSampler) and type(tasks).sample is TwoStageSampler.sample:
        return tasks.draw, tasks.fetch
    return (lambda key: key), tasks.sample  # also if a subclass overrides `sample`


def task_keys(key: PRNGKeyArray, step: Array, meta_batch: int) -> Array:
    """The keys of the tasks of one meta-step, `[tasks]`: a function of the run's key and the step number alone."""
    return jax.random.split(jax.random.fold_in(key, step), meta_batch)


def _outer_update(
    optimizer: optax.GradientTransformation, state: MetaState, mean: tuple[Params, MetaInfo], mesh: Mesh
) -> tuple[MetaState, StepInfo]:
    """One meta-step from each device's mean over its tasks; called inside the mesh."""
    grads, info = mean_over_devices(mean, cut=model_shards_of(mesh) > 1)
    updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
    params = optax.apply_updates(state.params, updates)
    seen = cut(StepInfo(info.outer_loss, info.inner_losses, global_norm(grads)), mesh)
    return MetaState(cut(params, mesh), cut(opt_state, mesh), state.key, state.step + 1), seen


def _check_unconsumed(state: MetaState) -> None:
    """Raise InnerloopError for a state whose arrays were donated to an earlier run."""
    if any(isinstance(leaf, jax.Array) and leaf.is_deleted() for leaf in jax.tree.leaves(state)):
        do = "continue with the state that `run` returned"
        raise InnerloopError("OuterLoop.run", "this state was consumed by an earlier run", do=do)


class MeshLoop(ABC):
    """States and compiled programs of an outer loop; subclasses define an update."""

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
        """The state before the first update, from meta-parameters (those of a trained model, for example).

        Raises:
            InnerloopError: a meta-parameter is not a float array.
        """
        check_trainable(meta_params, "OuterLoop.init")
        params = jax.tree.map(jnp.array, meta_params)  # a copy: `run` consumes the state that it is given
        return MetaState(params, self.init_optimizer(params), jnp.array(key), jnp.zeros((), jnp.int32))

    def run(self, state: MetaState, steps: int, *, most: int | None = None) -> tuple[MetaState, PyTree]:
        """Take `steps` updates in one call, which is compiled once for every number of them.

        Args:
            state: from `init` or `run`. It is consumed: its arrays are donated.
            steps: the number of updates, at least 1.
            most: compile for up to so many updates instead. Runs of all multiples of `unit(state.key, most)` up to it
                then share one program, and a training has the same bits however it is cut into them.

        Returns:
            The new state, and what to log, stacked over updates.

        Raises:
            InnerloopError: `steps` is below 1, or the state was consumed before.
        """
        if steps < 1:
            raise InnerloopError("OuterLoop.run", "`steps` must be 1 or more", got=steps)
        _check_unconsumed(state)
        whole = most is None or steps > most or steps % self.unit(state.key, most) > 0
        length = steps if most is None or whole else most
        if length not in self.programs:
            self.programs[length] = self.program(length)
        data = self.data(state, steps)
        state, info = self.programs[length](place_cut(state, self.mesh), *data)
        return state, info if length == steps else jax.tree.map(lambda x: x[:steps], info)

    def unit(self, key: PRNGKeyArray, most: int) -> int:
        """How many updates a program for up to `most` of them takes at least."""
        return most

    @abstractmethod
    def program(self, steps: int) -> Callable[..., tuple[MetaState, PyTree]]:
        """The compiled run of (up to) `steps` updates: `program(state, *data)`."""

    def data(self, state: MetaState, steps: int) -> tuple[PyTree, ...]:
        """The arguments of the program besides the state, for so many updates."""
        return ()

    def own_keys(self, key: PRNGKeyArray, step: Array) -> Array:
        """Inside the mesh: the keys of this device's tasks."""
        keys = task_keys(key, step, self.meta_batch)
        return jax.lax.dynamic_slice_in_dim(keys, jax.lax.axis_index("tasks") * self.share, self.share)


class GradientLoop(MeshLoop):
    """An outer loop that descends the mean meta-gradient of an algorithm, whatever its tasks come from."""

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
        """The state before the first update.

        Args:
            params: the parameters of a model.
            key: decides which tasks are drawn.

        Raises:
            InnerloopError: a parameter is not a float array.
        """
        return self.start(self.algorithm.init(params), key)

    def update(
        self, state: MetaState, items: PyTree, task_of: Callable[[PyTree], Task]
    ) -> tuple[MetaState, StepInfo]:
        """Inside the mesh: one update on this device's tasks, each made by `task_of` from one of `items`."""
        one = lambda item: self.algorithm.meta_grad(state.params, task_of(item))
        return _outer_update(self.optimizer, state, mean_in_chunks(one, items, self.chunk), self.mesh)


class OuterLoop(GradientLoop):
    """How the meta-parameters are learnt: `state = loop.init(params, key)`, `state, info = loop.run(state, steps)`."""

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
            chunk: the number of tasks vectorised at a time on each device (None: all of its share).
            mesh: the devices (None: as many as divide the meta-batch evenly).

        Raises:
            InnerloopError: the meta-batch is no multiple of devices x chunk.
        """
        super().__init__(algorithm, optimizer, meta_batch, chunk, mesh)
        self.tasks = tasks
        self.units: dict[int, int] = {}

    def program(self, steps: int) -> Callable[..., tuple[MetaState, StepInfo]]:
        """Up to `steps` updates; small tasks are drawn for several updates at once."""
        static = eqx.filter(self.tasks, eqx.is_array, inverse=True)

        def many(state: MetaState, count: Array, arrays: PyTree) -> tuple[MetaState, StepInfo]:
            tasks = eqx.combine(arrays, static)
            ahead = _steps_ahead(tasks.sample, self.own_keys(state.key, state.step), steps)
            # Tasks too large to be held together are fetched one chunk at a time.
            draw, fetch = (tasks.sample, lambda task: task) if ahead > 1 else _draw_and_fetch(tasks)

            def some(state: MetaState, _: None) -> tuple[MetaState, StepInfo]:
                keys = jax.vmap(self.own_keys, (None, 0))(state.key, state.step + jnp.arange(ahead))
                one = lambda state, items: self.update(state, items, fetch)
                return jax.lax.scan(one, state, jax.vmap(jax.vmap(draw))(keys))

            state, info = scan_up_to(some, state, count // ahead, steps // ahead)
            return state, jax.tree.map(lambda x: x.reshape(steps, *x.shape[2:]), info)

        return on_mesh(many, self.mesh, EVERYWHERE, EVERYWHERE, donate_argnums=0)

    def unit(self, key: PRNGKeyArray, most: int) -> int:
        """How many updates a program for up to `most` of them takes at least."""
        if most not in self.units:
            keys = jax.eval_shape(lambda key: jax.random.split(key, self.share), key)
            self.units[most] = _steps_ahead(self.tasks.sample, keys, most)
        return self.units[most]

    @cached_property
    def arrays(self) -> PyTree:
        """The arrays of the distribution, on every device."""
        return place(eqx.filter(self.tasks, eqx.is_array), self.mesh)

    def data(self, state: MetaState, steps: int) -> tuple[PyTree, ...]:
        """The arrays of the distribution: as constants they would be compiled into the program."""
        return place(np.int32(steps), self.mesh), self.arrays
