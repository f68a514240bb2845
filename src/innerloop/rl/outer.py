"""Whole meta-iterations as one compiled call: sample tasks, act, adapt, act, step, and again."""

from collections.abc import Callable
from typing import NamedTuple

import jax
from jax.sharding import Mesh
from jaxtyping import Array

from innerloop.engine.outer import MeshLoop, MetaState
from innerloop.parallel.mesh import EVERYWHERE, mean_over_devices
from innerloop.parallel.param_sharding import on_mesh
from innerloop.rl.sampler import MetaSampler, sampled
from innerloop.rl.updates import OuterStep


class IterationInfo(NamedTuple):
    """Means over one meta-batch, stacked over meta-iterations. `returns`: undiscounted, after 0..k inner steps.

    `broken` is no mean: the step at which each trajectory broke, or -1, `[tasks, policies, trajectories]`.
    """

    outer_loss: Array
    inner_losses: Array
    grad_norm: Array
    kl: Array
    length: Array
    returns: Array
    broken: Array


class MetaIterations(MeshLoop):
    """The outer loop of reinforcement learning: `start` and `run` as those of `OuterLoop`."""

    def __init__(
        self,
        collector: MetaSampler,
        outer_step: OuterStep,
        *,
        meta_batch: int,
        chunk: int | None = None,
        mesh: Mesh | None = None,
    ):
        """Meta-iterations of `meta_batch` tasks, `chunk` adapted side by side on each device (None: all of its share).

        Raises InnerloopError if the meta-batch does not divide over devices and chunks.
        """
        super().__init__(outer_step.init, meta_batch, chunk, mesh)
        self.collector, self.outer_step = collector, outer_step

    def update(self, state: MetaState) -> tuple[MetaState, IterationInfo]:
        """Inside the mesh: one meta-iteration."""
        own = self.own_keys(state.key, state.step)
        found = sampled(self.collector, state.params, own, self.chunk)
        params, opt_state, info = self.outer_step.step(state.params, state.opt_state, found.tasks)
        returns = mean_over_devices(found.returns.mean(0))
        seen = IterationInfo(*info, returns, jax.lax.all_gather(found.broken, "tasks", tiled=True))
        return MetaState(params, opt_state, state.key, state.step + 1), seen

    def program(self, steps: int) -> Callable[..., tuple[MetaState, IterationInfo]]:
        """`steps` meta-iterations."""

        def many(state: MetaState) -> tuple[MetaState, IterationInfo]:
            return jax.lax.scan(lambda state, _: self.update(state), state, None, length=steps)

        return on_mesh(many, self.mesh, (EVERYWHERE,), EVERYWHERE, donate_argnums=0)


def environment_steps(collector: MetaSampler, meta_batch: int) -> int:
    """Steps of the environment in one meta-iteration, those after an early end not taken off."""
    return meta_batch * (collector.inner.steps + 1) * collector.trajectories * collector.environment.horizon
