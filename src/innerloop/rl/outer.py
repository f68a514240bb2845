"""The outer loop for reinforcement learning: whole meta-iterations in one compiled call."""

import jax
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, PRNGKeyArray, PyTree

from innerloop.engine.diagnosis import Diverged
from innerloop.engine.meta_state import MetaState, restore_to_device
from innerloop.engine.outer.counted_scan import scan_up_to
from innerloop.engine.outer.mesh_loop import MeshLoop
from innerloop.engine.types import Params
from innerloop.errors import InnerloopError
from innerloop.parallel.mesh import mean_over_devices
from innerloop.rl.broken_trajectories import first_fatal, in_words
from innerloop.rl.environments.base import check_tasks
from innerloop.rl.fit import check_fit
from innerloop.rl.sampler import MetaSampler, check_is_sampler, sample_meta_batch
from innerloop.rl.updates import MetaObjective, OuterInfo, OuterStep


class MetaIterations(MeshLoop):
    """The outer loop for reinforcement learning, with the interface of `innerloop.OuterLoop`."""

    def __init__(
        self,
        sampler: MetaSampler,
        outer_step: OuterStep,
        *,
        meta_batch: int,
        chunk: int | None = None,
        mesh: Mesh | None = None,
    ):
        """An outer loop over an environment's tasks.

        Args:
            sampler: collects the trajectories.
            outer_step: computes the next parameters, from the data and the algorithm of the sampler.
            meta_batch: tasks in each meta-iteration.
            chunk: number of tasks adapted in parallel on each device (None: all of its share).
            mesh: the devices (None: all).

        Raises:
            InnerloopError: if `sampler` or `outer_step` is something else, the outer step cannot use the sampler's
                algorithm, this needs an inner step and has none, or the meta-batch cannot be divided evenly over
                devices and chunks.
        """
        check_is_sampler(sampler, "MetaIterations")
        if not isinstance(outer_step, OuterStep):
            got, hint = type(outer_step).__name__, "pass trpo_update(), for example"
            raise InnerloopError("MetaIterations", "needs an outer step", got=got, hint=hint)
        super().__init__(outer_step.init, meta_batch, chunk, mesh)
        algorithm = outer_step.prepare(sampler.replayed)
        if algorithm.adapts_in_training and not algorithm.inner.steps:
            wrong = f"{type(algorithm).__name__} needs an inner step"
            hint = "use joint, which takes none in training"
            raise InnerloopError("MetaIterations", wrong, got="`inner.steps` 0", hint=hint)
        self.sampler, self.outer_step = sampler, outer_step
        self.objective = MetaObjective(algorithm, chunk)

    def start(self, meta_params: Params, key: PRNGKeyArray) -> MetaState:
        """The state before the first meta-iteration, from the parameters of a policy.

        Raises:
            InnerloopError: if a parameter is not a float array, or the policy does not fit the environment
                (`check_fit`).
        """
        check_fit(self.sampler.environment, meta_params)
        return super().start(meta_params, key)

    def check_finite(self, before: MetaState, after: MetaState, info: OuterInfo) -> None:
        """Raise Diverged, with the previous state, unless the meta-iterations of one call of `run` are sound.

        Raises:
            Diverged: if more than a tenth of a meta-iteration's trajectories broke, or all those of one task; or if a
                loss, the meta-gradient or a parameter is not finite.
        """
        broken = np.asarray(info.broken)
        fatal = first_fatal(broken)
        if fatal is None:
            super().check_finite(before, after, info)
            return
        where, count = in_words(broken[fatal])
        family = type(self.sampler.environment).__name__
        wrong = f"{family} broke at meta-iteration {int(before.step) + fatal + 1}, in {where}"
        hint = "keep rewards finite, or lower the inner step size or `max_kl`"
        error = Diverged("MetaIterations.run", wrong, got=count, hint=hint)
        error.before = restore_to_device(before)
        raise error

    def check_tasks(self, key: PRNGKeyArray) -> None:
        """Raise InnerloopError unless `key` is a key and the environment draws its tasks from it."""
        check_tasks(self.sampler.environment, key, "MetaIterations")

    def update(self, state: MetaState) -> tuple[MetaState, OuterInfo]:
        """One meta-iteration, inside the mesh."""
        own = self.device_keys(state.key, state.step)
        found = sample_meta_batch(self.sampler, state.params, own, self.chunk)
        params, opt_state, info = self.outer_step.step(
            self.objective, state.params, state.opt_state, found.tasks
        )
        returns = mean_over_devices(found.returns.mean(0))
        broken = jax.lax.all_gather(found.broken, "tasks", tiled=True)
        info = info._replace(returns=returns, broken=broken)
        return MetaState(params, opt_state, state.key, state.step + 1), info

    def updates(
        self, state: MetaState, steps: int, count: Array | None, data: PyTree
    ) -> tuple[MetaState, OuterInfo]:
        """Inside the mesh: `steps` meta-iterations, or the first `count` of them."""
        return scan_up_to(lambda state, _: self.update(state), state, count, steps)

    def granularity(self, key: PRNGKeyArray, max_steps: int) -> int:
        """The smallest number of meta-iterations in one call: one."""
        return 1
