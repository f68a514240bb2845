r"""Outer steps: from the data of many tasks and the parameters to the next parameters.

`trpo_update` is TRPO at the adapted policies, as the MAML paper has it; `ppo_update` is ProMP's: several gradient steps
on the clipped objective with the same data; `gradient_update` is one step of any Optax optimiser along the
meta-gradient.

ProMP's penalty on the divergence of the policies before adaptation is left out.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

from innerloop.engine.algorithm import Algorithm
from innerloop.engine.chunking import mean_in_chunks
from innerloop.engine.pytree import global_norm
from innerloop.engine.types import Params, Task
from innerloop.parallel.mesh import mean_over_devices
from innerloop.rl.sampler import Adapt, over_tasks
from innerloop.rl.trpo.fisher import Product, fisher, mean_kl
from innerloop.rl.trpo.natural_gradient import TrustRegion, natural_step


class OuterInfo(NamedTuple):
    """What an outer step did. `kl`: mean divergence of the adapted policies; `length`: r, 0 if it stood still."""

    outer_loss: Float[Array, ""]
    inner_losses: Float[Array, " steps"]
    grad_norm: Float[Array, ""]
    kl: Float[Array, ""]
    length: Float[Array, ""]


class OuterStep(NamedTuple):
    """`init(params) -> opt_state`, and `step(params, opt_state, tasks) -> (params, opt_state, info)`.

    A step runs inside the mesh, on this device's tasks.
    """

    init: Callable[[Params], Any]
    step: Callable[[Params, Any, Task], tuple[Params, Any, OuterInfo]]


@dataclass(frozen=True)
class MetaObjective:
    """What all outer steps need: the algorithm, and how a policy is adapted.

    `adapt` is differentiated for the divergence; `first_order` of an adaptation counts it as a shift by a constant.
    `curvature(params, tasks)` is the divergence's product where it is known better than by differentiating.
    """

    algorithm: Algorithm
    adapt: Adapt
    chunk: int | None = None
    curvature: Callable[[Params, Task], Product] | None = None

    def product(self, params: Params, tasks: Task) -> Product:
        """`v -> F v` over all devices' tasks."""
        # All of them at once: a scan would keep what it linearised in memory of its own, and read it ten times.
        known = (
            fisher(self.adapt, params, tasks, None)
            if self.curvature is None
            else self.curvature(params, tasks)
        )
        return lambda v: mean_over_devices(known(v))

    def gradient(self, params: Params, tasks: Task) -> tuple[Params, Any]:
        """Mean meta-gradient and info over all devices' tasks."""
        count = jax.tree.leaves(tasks)[0].shape[0]
        one = lambda task: self.algorithm.meta_grad(params, task)
        return mean_over_devices(mean_in_chunks(one, tasks, self.chunk or count))

    def judged(self, params: Params, tasks: Task) -> tuple[Array, Array]:
        """Mean query loss after adapting, and mean divergence from the policies that acted."""

        def one(task: Task) -> tuple[Array, Array]:
            adapted = self.adapt(params, task.support)
            new = adapted(task.query.observations)
            return self.algorithm.query_loss(adapted, task.query), mean_kl(
                task.query.answers, new, task.query
            )

        loss, kl = over_tasks(one, tasks, self.chunk)
        return mean_over_devices((loss.mean(), kl.mean()))


def first_order(adapt: Adapt) -> Adapt:
    """The same adaptation, whose derivative is the identity."""

    def shifted(params: Params, support: Any) -> Params:
        # First-order algorithms take the displacement as a constant: that is their definition.
        shift = jax.tree.map(lambda a, p: jax.lax.stop_gradient(a - p), adapt(params, support), params)
        return jax.tree.map(jnp.add, params, shift)

    return shifted


def unadapted(params: Params, support: Any) -> Params:
    """No adaptation at all: joint training."""
    return params


def trpo_update(
    outer: MetaObjective, region: TrustRegion, sizes: optax.GradientTransformation | None = None
) -> OuterStep:
    """TRPO's step on the meta-objective, the divergence taken at the adapted policies.

    `sizes` makes of 1 how large a part of the region's step is taken (None: the whole); its state is the outer state.
    """
    scale = optax.identity() if sizes is None else sizes

    def step(params: Params, opt_state: Any, tasks: Task) -> tuple[Params, Any, OuterInfo]:
        grads, info = outer.gradient(params, tasks)
        count = jax.tree.leaves(tasks)[0].shape[0]
        some = jax.tree.map(lambda x: x[: math.ceil(region.share * count)], tasks)
        product = outer.product(params, some)
        judge = lambda p: outer.judged(p, tasks)
        size: Any
        size, opt_state = scale.update(jnp.ones_like(info.outer_loss), opt_state)
        assert isinstance(size, Array)
        moved = natural_step(params, grads, info.outer_loss, product, judge, region, size)
        seen = OuterInfo(info.outer_loss, info.inner_losses, global_norm(grads), moved.kl, moved.length)
        return moved.params, opt_state, seen

    return OuterStep(scale.init, step)


def ppo_update(outer: MetaObjective, optimizer: optax.GradientTransformation, epochs: int) -> OuterStep:
    """`epochs` steps of an optimiser on the same data; the algorithm's outer loss should be the clipped one."""

    def step(params: Params, opt_state: Any, tasks: Task) -> tuple[Params, Any, OuterInfo]:
        def once(carry: tuple[Params, Any], _: None) -> tuple[tuple[Params, Any], tuple]:
            params, opt_state = carry
            grads, info = outer.gradient(params, tasks)
            updates, opt_state = optimizer.update(grads, opt_state, params)
            return (optax.apply_updates(params, updates), opt_state), (info, global_norm(grads))

        (after, opt_state), (info, norms) = jax.lax.scan(once, (params, opt_state), None, length=epochs)
        _, kl = outer.judged(after, tasks)
        first = jax.tree.map(lambda x: x[0], info)
        seen = OuterInfo(first.outer_loss, first.inner_losses, norms[0], kl, jnp.ones_like(kl))
        return after, opt_state, seen

    return OuterStep(optimizer.init, step)


def gradient_update(outer: MetaObjective, optimizer: optax.GradientTransformation) -> OuterStep:
    """One step along the meta-gradient; also Reptile's, which has no query loss. The divergence is not measured."""

    def step(params: Params, opt_state: Any, tasks: Task) -> tuple[Params, Any, OuterInfo]:
        grads, info = outer.gradient(params, tasks)
        updates, opt_state = optimizer.update(grads, opt_state, params)
        norm = global_norm(grads)
        seen = OuterInfo(info.outer_loss, info.inner_losses, norm, jnp.zeros_like(norm), jnp.ones_like(norm))
        return optax.apply_updates(params, updates), opt_state, seen

    return OuterStep(optimizer.init, step)
