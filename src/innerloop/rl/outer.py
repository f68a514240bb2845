"""The outer loop of reinforcement learning: whole meta-iterations in one compiled call."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, PRNGKeyArray

from innerloop.engine.counted_scan import scan_up_to
from innerloop.engine.outer import MeshLoop, MetaState
from innerloop.parallel.mesh import EVERYWHERE, mean_over_devices, place
from innerloop.parallel.param_sharding import on_mesh
from innerloop.rl.sampler import MetaSampler, sample_meta_batch
from innerloop.rl.updates import OuterStep


class IterationInfo(NamedTuple):
    """Means over one meta-batch, with a leading axis of meta-iterations.

    Attributes:
        outer_loss: the query loss before the outer step.
        inner_losses: the loss before each inner step, `[iterations, steps]`.
        grad_norm: norm of the meta-gradient.
        kl: mean KL divergence of the adapted policies from those that acted.
        length: r, the fraction of the full step that was taken.
        returns: undiscounted returns after 0..k inner steps, `[iterations, k + 1]`.
        broken: not a mean: the step at which each trajectory broke, or -1, `[iterations, tasks, policies,
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
    """The outer loop of reinforcement learning, with the interface of `innerloop.OuterLoop`."""

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
            chunk: tasks adapted side by side on each device (None: all of its share).
            mesh: the devices (None: all).

        Raises:
            InnerloopError: if the meta-batch does not divide over devices and chunks.
        """
        super().__init__(outer_step.init, meta_batch, chunk, mesh)
        self.sampler, self.outer_step = sampler, outer_step

    def update(self, state: MetaState) -> tuple[MetaState, IterationInfo]:
        """One meta-iteration, inside the mesh."""
        own = self.own_keys(state.key, state.step)
        found = sample_meta_batch(self.sampler, state.params, own, self.chunk)
        params, opt_state, info = self.outer_step.step(state.params, state.opt_state, found.tasks)
        returns = mean_over_devices(found.returns.mean(0))
        info_out = IterationInfo(*info, returns, jax.lax.all_gather(found.broken, "tasks", tiled=True))
        return MetaState(params, opt_state, state.key, state.step + 1), info_out

    def program(self, steps: int) -> Callable[..., tuple[MetaState, IterationInfo]]:
        """A compiled program of up to `steps` meta-iterations."""

        def many(state: MetaState, count: Array) -> tuple[MetaState, IterationInfo]:
            return scan_up_to(lambda state, _: self.update(state), state, count, steps)

        return on_mesh(many, self.mesh, (EVERYWHERE, EVERYWHERE), EVERYWHERE, donate_argnums=0)

    def unit(self, key: PRNGKeyArray, most: int) -> int:
        """One meta-iteration can be taken alone."""
        return 1

    def data(self, state: MetaState, steps: int) -> tuple[Array]:
        """The number of meta-iterations."""
        return (place(np.int32(steps), self.mesh),)


def environment_steps(sampler: MetaSampler, meta_batch: int) -> int:
    """Environment steps in one meta-iteration, as if no trajectory ended early."""
    return meta_batch * (sampler.inner.steps + 1) * sampler.trajectories * sampler.environment.horizon
