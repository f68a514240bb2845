"""Whole meta-iterations as one compiled call: sample tasks, act, adapt, act, step, and again."""

from collections.abc import Callable
from typing import NamedTuple

import jax
from jax.sharding import Mesh, PartitionSpec
from jaxtyping import Array

from innerloop.mesh import mean_over_devices, place, task_mesh
from innerloop.outer import MetaState, split_evenly, task_keys
from innerloop.rl.collect import Collector, sampled
from innerloop.rl.outer_steps import OuterStep


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


def meta_iterations(
    collector: Collector,
    outer_step: OuterStep,
    *,
    meta_batch: int,
    steps: int,
    chunk: int | None = None,
    mesh: Mesh | None = None,
) -> Callable[[MetaState], tuple[MetaState, IterationInfo]]:
    """`run(state) -> (state, info)`: `steps` meta-iterations of `meta_batch` tasks. `run` consumes the state.

    `chunk` tasks are adapted side by side on each device (None: all of its share). Raises InnerloopError if the
    meta-batch does not divide over devices and chunks.
    """
    mesh = task_mesh(meta_batch) if mesh is None else mesh
    share, chunk = split_evenly(meta_batch, mesh, chunk)

    def one_step(state: MetaState) -> tuple[MetaState, IterationInfo]:
        keys = task_keys(state.key, state.step, meta_batch)
        own = jax.lax.dynamic_slice_in_dim(keys, jax.lax.axis_index("tasks") * share, share)
        found = sampled(collector, state.params, own, chunk)
        params, opt_state, info = outer_step(state.params, state.opt_state, found.tasks)
        returns = mean_over_devices(found.returns.mean(0))
        seen = IterationInfo(*info, returns, jax.lax.all_gather(found.broken, "tasks", tiled=True))
        return MetaState(params, opt_state, state.key, state.step + 1), seen

    def many(state: MetaState) -> tuple[MetaState, IterationInfo]:
        return jax.lax.scan(lambda state, _: one_step(state), state, None, length=steps)

    everywhere = PartitionSpec()
    # The state is the same on every device after pmean; the check cannot see that through the scan.
    shared = jax.shard_map(many, mesh=mesh, in_specs=(everywhere,), out_specs=everywhere, check_vma=False)
    compiled = jax.jit(shared, donate_argnums=0)
    return lambda state: compiled(place(state, mesh))


def environment_steps(collector: Collector, meta_batch: int) -> int:
    """Steps of the environment in one meta-iteration, those after an early end not taken off."""
    return meta_batch * (collector.inner.steps + 1) * collector.trajectories * collector.environment.horizon
