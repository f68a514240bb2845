r"""The outer loop: update the meta-parameters by the mean meta-gradient of a meta-batch of tasks.

    theta <- optimizer(theta, mean over tasks of g(theta, task))

Tasks are split over the devices of a mesh axis `tasks` (CPU cores count as devices), and large models over a second
axis `model`. Each device processes its tasks in vectorised chunks and keeps only the running sum of their gradients.
Many meta-steps run as one scan, without returning to the host in between.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from functools import cached_property
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh
from jaxtyping import Array, PRNGKeyArray, PyTree

from innerloop.engine.algorithm import Algorithm, MetaInfo, check_is_algorithm, loss_key
from innerloop.engine.chunking import divisor_up_to, mean_in_chunks, split_evenly
from innerloop.engine.counted_scan import scan_up_to
from innerloop.engine.diagnosis import (
    Diverged,
    Layers,
    Place,
    advice,
    first_nonfinite,
    first_nonfinite_leaf,
    first_nonfinite_update,
    locate_in_parameters,
    of_leaf,
)
from innerloop.engine.distribution import check_distribution, check_key, split_arrays
from innerloop.engine.learning_check import check_learns
from innerloop.engine.meta_state import (
    MetaState,
    check_state,
    copy_to_host,
    restore_to_device,
    without_aliases,
)
from innerloop.engine.optimizer import apply_optimizer, initial_moments
from innerloop.engine.persistent_adam import WithMoments, check_outer_optimizer
from innerloop.engine.pytree import check_trainable, global_norm, shapes_only
from innerloop.engine.types import Params, Task, TaskDistribution, TwoStageSampler
from innerloop.errors import InnerloopError, check_choice, check_count
from innerloop.parallel.compile_once import compile_once
from innerloop.parallel.mesh import REPLICATED, local_copy, mean_over_devices, replicate, task_mesh
from innerloop.parallel.param_sharding import constrain_sharding, model_shards_of, on_mesh, shard_params


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


AHEAD_BYTES = 2_000_000
"""Small tasks are drawn for as many meta-steps at once as fit in a core's cache. Drawing them for one meta-step at a
time costs as much as the meta-step of a small network."""


def _steps_ahead(draw: Callable[[Array], PyTree], keys: Array | jax.ShapeDtypeStruct, steps: int) -> int:
    """The number of meta-steps, a divisor of `steps`, whose tasks fit in `AHEAD_BYTES`; `keys` are those of one."""
    leaves = jax.tree.leaves(jax.eval_shape(jax.vmap(draw), keys))
    size = sum(leaf.size * leaf.dtype.itemsize for leaf in leaves)
    return divisor_up_to(steps, AHEAD_BYTES // max(size, 1))


def _draw_and_fetch(tasks: TaskDistribution) -> tuple[Callable[[PyTree], PyTree], Callable[[PyTree], Task]]:
    """`draw`, applied to all keys of a meta-step at once, and `fetch`, which makes a task from what was drawn."""
    if isinstance(tasks, TwoStageSampler) and type(tasks).sample is TwoStageSampler.sample:
        return tasks.draw, tasks.fetch
    return (lambda key: key), tasks.sample  # also if a subclass overrides `sample`


def task_keys(key: PRNGKeyArray, step: Array, meta_batch: int) -> Array:
    """The keys of the tasks of one meta-step, `[tasks]`; they depend only on the run's key and the step number."""
    return jax.random.split(jax.random.fold_in(key, step), meta_batch)


def drawn_tasks(tasks: TaskDistribution, key: PRNGKeyArray, step: Array, meta_batch: int) -> Iterator[Task]:
    """The tasks of one meta-step, one at a time."""
    held, with_arrays = split_arrays(tasks)
    draw = compile_once(lambda held, key: with_arrays(held).sample(key))
    for one in task_keys(key, step, meta_batch):
        yield draw(held, one)


Program = Callable[[MetaState, Array | None, PyTree], tuple[MetaState, PyTree]]
"""`program(state, count, data)`: the first `count` updates of those that were compiled (None: all of them)."""


class MeshLoop(ABC):
    """The states and compiled programs of an outer loop; subclasses define the update."""

    data_spec = REPLICATED
    """How `data` is split over the mesh."""

    def __init__(
        self,
        init_optimizer: Callable[[Params], optax.OptState],
        meta_batch: int,
        chunk: int | None = None,
        mesh: Mesh | None = None,
    ):
        meta_batch = check_count("OuterLoop", "meta_batch", meta_batch)
        chunk = chunk if chunk is None else check_count("OuterLoop", "chunk", chunk)
        self.init_optimizer, self.meta_batch = init_optimizer, meta_batch
        self.mesh = task_mesh(meta_batch) if mesh is None else mesh
        self.share, self.chunk = split_evenly(meta_batch, self.mesh, chunk)
        self.programs: dict[int, Program] = {}

    def start(self, meta_params: Params, key: PRNGKeyArray) -> MetaState:
        """The state before the first update, from meta-parameters (those of a trained model, for example).

        Raises:
            InnerloopError: a meta-parameter is not a float array, the optimizer does not fit, `key` is not a key, or
                the tasks do not depend on it.
        """
        check_trainable(meta_params, "OuterLoop.init")
        self.check_tasks(key)
        params = jax.tree.map(jnp.array, meta_params)  # a copy: `run` consumes the state that it is given
        moments = initial_moments(self.init_optimizer, params, type(self).__name__)
        return MetaState(params, moments, jnp.array(key), jnp.zeros((), jnp.int32))

    def run(
        self,
        state: MetaState,
        steps: int,
        *,
        on_nonfinite: Literal["raise", "ignore"] = "raise",
        max_steps: int | None = None,
    ) -> tuple[MetaState, PyTree]:
        """Take `steps` updates in one call, which is compiled once for each number of updates.

        Args:
            state: from `init` or `run`. It is consumed: its arrays are donated.
            steps: the number of updates, at least 1.
            on_nonfinite: "raise" raises an error if a loss, gradient or parameter is not finite; the error's attribute
                `before` is the state before this call. "ignore" returns at once, as JAX functions do, while devices
                are still computing.
            max_steps: if given, compile one program for up to `max_steps` updates. Calls whose `steps` is a multiple of
                `granularity(state.key, max_steps)` and at most `max_steps` share it, so training can be split
                freely into such calls.

        Returns:
            The new state, and what to log, stacked over updates.

        Raises:
            InnerloopError: `steps` is below 1, or the state was consumed by an earlier call.
            Diverged: an InnerloopError that names the first update, task and inner step that were not finite.
        """
        check_choice("OuterLoop.run", "on_nonfinite", on_nonfinite, ("raise", "ignore"))
        steps = check_count("OuterLoop.run", "steps", steps)
        max_steps = max_steps if max_steps is None else check_count("OuterLoop.run", "max_steps", max_steps)
        check_state(state)
        if not self.programs:
            self.check_tasks(state.key)
        program, count = self.compiled(state.key, steps, max_steps)
        data = self.data(state, steps)
        before = copy_to_host(state) if on_nonfinite == "raise" else None
        state, info = program(shard_params(without_aliases(state), self.mesh), count, data)
        info = jax.tree.map(lambda x: x if len(x) == steps else x[:steps], info)
        if before is not None:
            self.check_finite(before, state, info)
        self.after_run(steps, state, info)
        return state, info

    def after_run(self, steps: int, state: MetaState, info: PyTree) -> None:  # noqa: B027 (most have nothing to remember)
        """A hook for subclasses, called after `run` with its number of updates and what it returns."""

    def compiled(self, key: PRNGKeyArray, steps: int, max_steps: int | None) -> tuple[Program, Array | None]:
        """A program for `steps` updates, its own or the one for all lengths up to `max_steps`, and its `count`."""
        length, count = steps, None
        if max_steps is not None and steps <= max_steps:
            granularity = self.granularity(key, max_steps)
            if granularity < max_steps and steps % granularity == 0:
                length, count = max_steps, replicate(np.int32(steps), self.mesh)
        if length not in self.programs:
            self.programs[length] = self.program(length)
        return self.programs[length], count

    def granularity(self, key: PRNGKeyArray, max_steps: int) -> int:
        """The fewest updates that one program for up to `max_steps` takes; `max_steps` if there is no such program."""
        return max_steps

    def check_finite(self, before: MetaState, after: MetaState, info: PyTree) -> None:
        """Raise Diverged, with the previous state, unless all losses, gradients and parameters are finite."""
        lost, number, who = first_nonfinite_update(info), int(before.step), f"{type(self).__name__}.run"
        if lost is not None:
            place = self.locate(before, lost.good) or lost.place
            hint = advice(place, "the step sizes, or scale the data", "the optimizer's step size")
            error = Diverged(
                who,
                f"update {number + lost.good + 1} diverged, in {place.text}",
                got=lost.got,
                hint=f"{hint}; the error's `before` is the state before this call",
            )
        elif (parameter := first_nonfinite_leaf(after.params)) is not None:
            wrong = f"diverged by update {number + len(info.outer_loss)}, in the optimizer's step{of_leaf(parameter)}"
            error = Diverged(who, wrong, hint="lower the optimizer's step size")
        else:
            return
        error.before = restore_to_device(before)
        raise error

    def locate(
        self, before: MetaState, good: int, layers: Layers | None = None, max_steps: int | None = None
    ) -> Place | None:
        """Where the update after `good` finite ones became non-finite; None if that is unknown.

        Args:
            before: the state before the first of the finite updates, from `copy_to_host`.
            good: the number of finite updates.
            layers: the outputs of a model's layers, to name the first one that is not finite.
            max_steps: as for the call of `run` that diverged, whose program is then used again.
        """
        return None if good else locate_in_parameters(before.params)

    def check_tasks(self, key: PRNGKeyArray) -> None:
        """Raise InnerloopError unless this is a key, and the tasks are drawn from it."""
        check_key(key, type(self).__name__)

    def program(self, steps: int) -> Program:
        """The compiled run of `steps` updates, or, with a `count`, of any multiple of `granularity` up to `steps`."""
        many = lambda state, count, data: self.updates(state, steps, count, data)
        in_specs = (REPLICATED, REPLICATED, self.data_spec)
        return on_mesh(many, self.mesh, in_specs, REPLICATED, donate_argnums=0)

    @abstractmethod
    def updates(
        self, state: MetaState, steps: int, count: Array | None, data: PyTree
    ) -> tuple[MetaState, PyTree]:
        """Inside the mesh: `steps` updates, or the first `count` of them; `data` is this device's share."""

    def data(self, state: MetaState, steps: int) -> PyTree:
        """What `steps` updates from this state read besides the state, on the devices."""
        return None

    def device_keys(self, key: PRNGKeyArray, step: Array) -> Array:
        """Inside the mesh: the keys of this device's tasks."""
        keys = task_keys(key, step, self.meta_batch)
        if self.share == self.meta_batch:
            return keys
        return jax.lax.dynamic_slice_in_dim(keys, jax.lax.axis_index("tasks") * self.share, self.share)


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
        check_is_algorithm(algorithm, "OuterLoop")
        if not (hasattr(optimizer, "init") and hasattr(optimizer, "update")):
            hint = "pass optax.adam(1e-3), for example"
            raise InnerloopError(
                "OuterLoop", "`optimizer` must be an Optax optimiser", got=optimizer, hint=hint
            )
        super().__init__(optimizer.init, meta_batch, chunk, mesh)
        self.algorithm, self.optimizer = algorithm, optimizer

    def init(self, params: Params, key: PRNGKeyArray) -> MetaState:
        """The state before the first update.

        Args:
            params: the parameters of a model.
            key: determines which tasks are drawn.

        Raises:
            InnerloopError: a parameter is not a float array, or the optimizer does not fit the parameters or the inner
                rule.
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
            InnerloopError: the meta-batch is not a multiple of devices x chunk, or the algorithm or optimizer is none.
        """
        super().__init__(algorithm, optimizer, meta_batch, chunk, mesh)
        self.tasks = tasks
        self.granularities: dict[int, int] = {}
        self.held, self.with_arrays = split_arrays(tasks)

    def check_tasks(self, key: PRNGKeyArray) -> None:
        """Raise InnerloopError unless this is a key, and the tasks are drawn from it."""
        check_distribution(self.with_arrays(self.arrays), key, "OuterLoop")

    def start(self, meta_params: Params, key: PRNGKeyArray) -> MetaState:
        """The state before the first update, from meta-parameters. Raises InnerloopError as in `init`."""
        state = super().start(meta_params, key)
        tasks = self.with_arrays(self.arrays)
        check_learns(self.algorithm, state.params, tasks, key, "OuterLoop", outer=True)
        return state

    def tasks_of_update(self, key: PRNGKeyArray, step: Array) -> Iterator[Task]:
        """The tasks of one update, drawn again one at a time."""
        return drawn_tasks(self.tasks, key, step, self.meta_batch)

    def updates(
        self, state: MetaState, steps: int, count: Array | None, data: PyTree
    ) -> tuple[MetaState, StepInfo]:
        """Inside the mesh: `steps` updates, or the first `count` of them; small tasks are drawn for several at once."""
        tasks = self.with_arrays(data)
        ahead = _steps_ahead(tasks.sample, self.device_keys(state.key, state.step), steps)
        # Tasks too large to hold in memory together are fetched one chunk at a time.
        draw, fetch = (tasks.sample, lambda task: task) if ahead > 1 else _draw_and_fetch(tasks)

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
            self.granularities[max_steps] = _steps_ahead(tasks.sample, keys, max_steps)
        return self.granularities[max_steps]

    @cached_property
    def arrays(self) -> PyTree:
        """The arrays of the distribution, on every device."""
        return replicate(self.held, self.mesh)

    def data(self, state: MetaState, steps: int) -> PyTree:
        """The arrays of the distribution: if they were constants, they would be compiled into the program."""
        return self.arrays
