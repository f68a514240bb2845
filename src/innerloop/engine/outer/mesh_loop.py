"""The states and compiled programs of any outer loop, on the devices of a mesh.

Tasks are split over a mesh axis `tasks` (CPU cores count as devices), and large models over a second axis `model`. Many
meta-steps run as one scan, without returning to the host in between.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh
from jaxtyping import Array, PRNGKeyArray, PyTree

from innerloop.engine.diagnosis import Layers, Place, Reporter, find_divergence, locate_in_parameters
from innerloop.engine.keys import check_key
from innerloop.engine.meta_state import (
    MetaState,
    check_state,
    copy_to_host,
    restore_to_device,
    without_aliases,
)
from innerloop.engine.optimizer import initial_moments
from innerloop.engine.outer.chunking import split_evenly
from innerloop.engine.outer.task_draws import task_keys
from innerloop.engine.trainable import check_trainable
from innerloop.engine.types import Params
from innerloop.errors import check_choice, check_count
from innerloop.parallel.mesh import REPLICATED, replicate, task_mesh
from innerloop.parallel.param_sharding import on_mesh, shard_params

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
        who = type(self).__name__
        meta_batch = check_count(who, "meta_batch", meta_batch)
        chunk = chunk if chunk is None else check_count(who, "chunk", chunk)
        self.init_optimizer, self.meta_batch = init_optimizer, meta_batch
        self.mesh = task_mesh(meta_batch) if mesh is None else mesh
        self.share, self.chunk = split_evenly(meta_batch, self.mesh, chunk, who)
        self.programs: dict[int, Program] = {}

    def init(self, params: Params, key: PRNGKeyArray) -> MetaState:
        """The state before the first update.

        Args:
            params: the parameters of a model.
            key: determines which tasks are drawn.

        Raises:
            InnerloopError: as in `start`.
        """
        return self.start(params, key)

    def start(self, meta_params: Params, key: PRNGKeyArray) -> MetaState:
        """The state before the first update, from meta-parameters (those of a trained model, for example).

        Raises:
            InnerloopError: if a meta-parameter is not a float array, the optimizer does not fit, `key` is not
                a key, or the tasks do not depend on it.
        """
        check_trainable(meta_params, f"{type(self).__name__}.init")
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
            InnerloopError: if `steps` is below 1, or the state was consumed by an earlier call.
            Diverged: an InnerloopError that names the first update, task and inner step that were not finite.
        """
        who = f"{type(self).__name__}.run"
        check_choice(who, "on_nonfinite", on_nonfinite, ("raise", "ignore"))
        steps = check_count(who, "steps", steps)
        max_steps = max_steps if max_steps is None else check_count(who, "max_steps", max_steps)
        check_state(state, who)
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
        sizes, outer = "the step sizes, or scale the data", "the optimizer's step size"
        reporter = Reporter(f"{type(self).__name__}.run", "update {} diverged", sizes, outer)
        locate = lambda good: self.locate(before, good)
        end = lambda: "; the error's `before` is the state before this call"
        error = find_divergence(info, after.params, int(before.step) + 1, reporter, locate, end)
        if error is not None:
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
