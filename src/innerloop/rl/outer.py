"""The outer loop for reinforcement learning: whole meta-iterations in one compiled call."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, PRNGKeyArray, PyTree

from innerloop.engine.counted_scan import scan_up_to
from innerloop.engine.outer import MeshLoop, MetaState
from innerloop.engine.pytree import paths
from innerloop.engine.types import Params
from innerloop.errors import InnerloopError
from innerloop.parallel.mesh import mean_over_devices
from innerloop.rl.broken_trajectories import first_fatal, in_words
from innerloop.rl.environments.base import check_tasks
from innerloop.rl.fit import check_fit
from innerloop.rl.sampler import MetaSampler, sample_meta_batch
from innerloop.rl.updates import OuterStep

WHO = "MetaIterations.run"


class IterationInfo(NamedTuple):
    """Means over one meta-batch, with a leading axis of meta-iterations.

    Attributes:
        outer_loss: the query loss before the outer step.
        inner_losses: the loss before each inner step, `[iterations, steps]`.
        grad_norm: norm of the meta-gradient.
        kl: mean KL divergence of the new adapted policies from those that acted.
        length: r, the fraction of the full step that was taken.
        returns: undiscounted returns after 0..k inner steps, `[iterations, k + 1]`.
        broken: not a mean, but the step at which each trajectory broke, or -1, `[iterations, tasks, policies,
            trajectories]`.
    """

    outer_loss: Array
    inner_losses: Array
    grad_norm: Array
    kl: Array
    length: Array
    returns: Array
    broken: Array


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
            outer_step: computes the next parameters.
            meta_batch: tasks in each meta-iteration.
            chunk: number of tasks adapted in parallel on each device (None: all of its share).
            mesh: the devices (None: all).

        Raises:
            InnerloopError: if the meta-batch cannot be divided evenly over devices and chunks.
        """
        super().__init__(outer_step.init, meta_batch, chunk, mesh)
        self.sampler, self.outer_step = sampler, outer_step

    def start(self, meta_params: Params, key: PRNGKeyArray) -> MetaState:
        """The state before the first meta-iteration, from the parameters of a policy.

        Raises:
            InnerloopError: if a parameter is not a float array, or the policy does not fit the environment
                (`check_fit`).
        """
        check_fit(self.sampler.environment, meta_params)
        return super().start(meta_params, key)

    def check_finite(self, before: MetaState, after: MetaState, info: IterationInfo) -> None:
        """Raise InnerloopError unless the meta-iterations of one call of `run` are sound.

        Raises:
            InnerloopError: if more than a tenth of a meta-iteration's trajectories broke, or all those of one task; or
                if a loss, the meta-gradient or a parameter is not finite.
        """
        check_info(info, int(before.step), type(self.sampler.environment).__name__)
        check_policy(after.params, int(after.step))

    def check_tasks(self, key: PRNGKeyArray) -> None:
        """Raise InnerloopError unless `key` is a key and the environment draws its tasks from it."""
        check_tasks(self.sampler.environment, key, "MetaIterations")

    def update(self, state: MetaState) -> tuple[MetaState, IterationInfo]:
        """One meta-iteration, inside the mesh."""
        own = self.device_keys(state.key, state.step)
        found = sample_meta_batch(self.sampler, state.params, own, self.chunk)
        params, opt_state, info = self.outer_step.step(state.params, state.opt_state, found.tasks)
        returns = mean_over_devices(found.returns.mean(0))
        info_out = IterationInfo(*info, returns, jax.lax.all_gather(found.broken, "tasks", tiled=True))
        return MetaState(params, opt_state, state.key, state.step + 1), info_out

    def updates(
        self, state: MetaState, steps: int, count: Array | None, data: PyTree
    ) -> tuple[MetaState, IterationInfo]:
        """Inside the mesh: `steps` meta-iterations, or the first `count` of them."""
        return scan_up_to(lambda state, _: self.update(state), state, count, steps)

    def granularity(self, key: PRNGKeyArray, max_steps: int) -> int:
        """The smallest number of meta-iterations in one call: one."""
        return 1


def check_info(info: IterationInfo, first: int, family: str) -> None:
    """Raise InnerloopError for numbers that are not finite, naming the meta-iteration (`first` came before).

    `innerloop.rl.broken_trajectories` decides when too many trajectories broke.
    """
    broken = np.asarray(info.broken)
    fatal = first_fatal(broken)
    if fatal is not None:
        where, count = in_words(broken[fatal])
        hint = "keep rewards finite, or lower the inner step size or `max_kl`"
        raise InnerloopError(
            WHO, f"{family} broke at meta-iteration {first + fatal}, in {where}", got=count, hint=hint
        )
    numbers = (info.outer_loss[:, None], info.grad_norm[:, None], info.inner_losses)
    sound = np.isfinite(np.concatenate([np.asarray(x) for x in numbers], 1)).all(1)
    if not sound.all():
        bad = int(np.argmin(sound))
        fields = ("outer_loss", "grad_norm", "inner_losses")
        got = ", ".join(f"{name} {np.asarray(getattr(info, name)[bad])}" for name in fields)
        wrong = f"meta-iteration {first + bad} has a loss or a meta-gradient that is not finite"
        raise InnerloopError(WHO, wrong, got=got, hint="lower the inner or the outer step size")


def check_policy(params: Params, step: int) -> None:
    """Raise InnerloopError for parameters that are not finite after `step` meta-iterations."""
    for path, leaf in zip(paths(params), jax.tree.leaves(params), strict=True):
        if not bool(jnp.isfinite(leaf).all()):
            wrong = f"`{path}` is not finite after {step} meta-iterations"
            raise InnerloopError(WHO, wrong, hint="lower the outer step size")


def environment_steps(sampler: MetaSampler, meta_batch: int) -> int:
    """Environment steps in one meta-iteration, assuming that no trajectory ends early."""
    return meta_batch * (sampler.inner.steps + 1) * sampler.trajectories * sampler.environment.horizon
