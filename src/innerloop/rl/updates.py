r"""Outer steps: compute the next parameters from the current ones and the samples of many tasks.

`trpo_update` is TRPO at the adapted policies (Finn, Abbeel and Levine 2017, section 5.3, arXiv 1703.03400).
`ppo_update` is ProMP's: several gradient steps on the clipped objective with the same samples (Rothfuss et al. 2019,
algorithm 1, arXiv 1810.06784). `gradient_update` is one step of any Optax optimiser along the meta-gradient.

ProMP's penalty on the divergence of the policies before adaptation is omitted.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int, PyTree

from innerloop.config.bounds import Bounds, check_number
from innerloop.engine.algorithm import Algorithm, check_is_algorithm
from innerloop.engine.chunking import mean_in_chunks
from innerloop.engine.optimizer import apply_optimizer
from innerloop.engine.pytree import global_norm, shapes_only
from innerloop.engine.types import Params, Task
from innerloop.errors import InnerloopError
from innerloop.io.text import counted
from innerloop.parallel.mesh import mean_over_devices
from innerloop.rl.query_loss import check_query_loss
from innerloop.rl.sampler import map_tasks
from innerloop.rl.trpo.fisher import Adapt, fisher, mean_kl
from innerloop.rl.trpo.natural_gradient import TrustRegion, natural_step


class OuterInfo(NamedTuple):
    """The result of an outer step.

    Attributes:
        outer_loss: the query loss before the step.
        inner_losses: the loss before each inner step.
        grad_norm: norm of the meta-gradient.
        kl: mean KL divergence of the new adapted policies from those that acted.
        length: r, the fraction of the full step; 0 if the parameters did not change.
        returns: mean undiscounted returns after 0..k inner steps (filled in by `MetaIterations`).
        broken: the step at which each trajectory broke, or -1 (filled in by `MetaIterations`).
    """

    outer_loss: Float[Array, ""]
    inner_losses: Float[Array, " steps"]
    grad_norm: Float[Array, ""]
    kl: Float[Array, ""]
    length: Float[Array, ""]
    returns: Float[Array, " policies"] | None = None
    broken: Int[Array, "tasks policies trajectories"] | None = None

    __repr__ = shapes_only


class OuterStep(NamedTuple):
    """How the outer loop updates the parameters, in the style of Optax.

    Attributes:
        init: `init(params) -> opt_state`.
        step: `step(params, opt_state, tasks) -> (params, opt_state, info)`, called inside the mesh with the tasks of
            one device.
    """

    init: Callable[[Params], PyTree]
    step: Callable[[Params, PyTree, Task], tuple[Params, PyTree, OuterInfo]]


@dataclass(frozen=True)
class MetaObjective:
    """The objective that every outer step improves: the query loss of the adapted policies.

    Attributes:
        algorithm: computes the meta-gradient: the sampler's `replayed`.
        chunk: number of tasks adapted at a time (None: all).

    Raises:
        InnerloopError: if `algorithm` is something else, or needs an inner step and has none.
    """

    algorithm: Algorithm
    chunk: int | None = None

    def __post_init__(self) -> None:
        check_is_algorithm(self.algorithm, "MetaObjective", "pass the sampler's `replayed`")
        if self.algorithm.adapts_in_training and not self.algorithm.inner.steps:
            wrong = f"{type(self.algorithm).__name__} needs an inner step"
            hint = "use joint, which takes none in training"
            raise InnerloopError("MetaObjective", wrong, got="`inner.steps` 0", hint=hint)

    @property
    def adapt(self) -> Adapt:
        """The adaptation that the KL divergence is differentiated through, with the algorithm's own derivative.

        First-order algorithms (`second_order` is False) shift the parameters by a constant.
        """
        if not self.algorithm.inner.steps:
            return lambda params, support: params
        own = self.algorithm.adapt
        return own if self.algorithm.second_order else _first_order(own)

    def gradient(self, params: Params, tasks: Task) -> tuple[Params, PyTree]:
        """Mean meta-gradient and info over the tasks of all devices.

        Raises:
            InnerloopError: if several inner steps would share trajectories.
        """
        self._check_replayed(tasks)
        count = jax.tree.leaves(tasks)[0].shape[0]
        one = lambda task: self.algorithm.meta_grad(params, task)
        return mean_over_devices(mean_in_chunks(one, tasks, self.chunk or count))

    def _check_replayed(self, tasks: Task) -> None:
        """Raise InnerloopError unless each inner step reads its own trajectories from the support set."""
        inner = self.algorithm.inner
        given = 0 if tasks.support is None else jax.tree.leaves(tasks.support)[0].shape[1]
        read = given if inner.steps == 1 else (inner.minibatch or 0) * inner.steps
        if read != given or (inner.steps > 0) != (given > 0):
            steps = counted(inner.steps, "inner step")
            wrong = f"its {steps} must read {given} trajectories, each its own share"
            hint = "pass the sampler's `replayed` as algorithm"
            raise InnerloopError("MetaObjective", wrong, got=f"minibatch {inner.minibatch}", hint=hint)

    def judged(self, params: Params, tasks: Task) -> tuple[Array, Array]:
        """Mean query loss after adaptation, and mean KL divergence from the policies that acted."""

        def one(task: Task) -> tuple[Array, Array]:
            adapted = self.adapt(params, task.support)
            new = adapted(task.query.observations)
            return self.algorithm.query_loss(adapted, task.query), mean_kl(
                task.query.action_dist, new, task.query
            )

        loss, kl = map_tasks(one, tasks, self.chunk)
        return mean_over_devices((loss.mean(), kl.mean()))


def _first_order(adapt: Adapt) -> Adapt:
    """The same adaptation with the identity as its derivative."""

    def shifted(params: Params, support: PyTree) -> Params:
        # First-order algorithms treat the displacement as a constant by definition.
        held = jax.lax.stop_gradient(params)
        shift = jax.tree.map(jnp.subtract, adapt(held, support), held)
        return jax.tree.map(jnp.add, params, shift)

    return shifted


def _check_objective(outer: object, who: str) -> None:
    """Raise InnerloopError, on behalf of `who`, unless this is an objective."""
    if not isinstance(outer, MetaObjective):
        hint = "pass MetaObjective(sampler.replayed)"
        raise InnerloopError(who, "needs a MetaObjective", got=type(outer).__name__, hint=hint)


def trpo_update(
    outer: MetaObjective, region: TrustRegion, sizes: optax.GradientTransformation | None = None
) -> OuterStep:
    """TRPO on the meta-objective, with the KL divergence of the adapted policies.

    Args:
        outer: the objective; its algorithm's outer loss is `surrogates.ratio`, for example: the line search compares
            its values, and that of `surrogates.dice` is the same for all policies.
        region: the trust region.
        sizes: scales the step: an Optax transformation applied to the number 1, such as `optax.scale_by_schedule`
            (None: the full step). Its state is the state of the outer step.

    Raises:
        InnerloopError: if `outer` is something else, the inner loop is differentiated in mixed mode, or the query loss
            has no importance weights.
    """
    _check_objective(outer, "trpo_update")
    check_query_loss(outer.algorithm, "trpo_update", "ratio")
    scale = optax.identity() if sizes is None else sizes
    inner = outer.algorithm.inner
    if inner.steps and inner.derivative == "mixed":
        hint = "use `inner.derivative` rematerialised or unrolled"
        wrong = "the Fisher product needs forward mode through the inner loop, which mixed mode lacks"
        raise InnerloopError("trpo_update", wrong, got="`inner.derivative` mixed", hint=hint)

    def step(params: Params, opt_state: PyTree, tasks: Task) -> tuple[Params, PyTree, OuterInfo]:
        grads, info = outer.gradient(params, tasks)
        count = jax.tree.leaves(tasks)[0].shape[0]
        some = jax.tree.map(lambda x: x[: math.ceil(region.share * count)], tasks)
        own = fisher(outer.adapt, params, some)
        judge = lambda p: outer.judged(p, tasks)
        size: PyTree
        size, opt_state = scale.update(jnp.ones_like(info.outer_loss), opt_state)
        assert isinstance(size, Array)
        moved = natural_step(
            params, grads, info.outer_loss, lambda v: mean_over_devices(own(v)), judge, region, size
        )
        info_out = OuterInfo(info.outer_loss, info.inner_losses, global_norm(grads), moved.kl, moved.length)
        return moved.params, opt_state, info_out

    return OuterStep(scale.init, step)


def ppo_update(outer: MetaObjective, optimizer: optax.GradientTransformation, epochs: int) -> OuterStep:
    """Several gradient steps on the same samples.

    Args:
        outer: the objective; its algorithm's outer loss is `surrogates.clipped(0.2)`, for example.
        optimizer: any Optax optimiser.
        epochs: the number of gradient steps.

    Raises:
        InnerloopError: if `outer` is something else, `epochs` is below 1, or the query loss has no importance weights.
    """
    _check_objective(outer, "ppo_update")
    check_number("ppo_update.epochs", epochs, Bounds(1, 10_000), integer=True)
    check_query_loss(outer.algorithm, "ppo_update", "clipped(0.2)")

    def step(params: Params, opt_state: PyTree, tasks: Task) -> tuple[Params, PyTree, OuterInfo]:
        def once(carry: tuple[Params, PyTree], _: None) -> tuple[tuple[Params, PyTree], tuple]:
            return _gradient_step(outer, optimizer, *carry, tasks)

        (after, opt_state), (info, norms) = jax.lax.scan(once, (params, opt_state), None, length=epochs)
        _, kl = outer.judged(after, tasks)
        first = jax.tree.map(lambda x: x[0], info)
        info_out = OuterInfo(first.outer_loss, first.inner_losses, norms[0], kl, jnp.ones_like(kl))
        return after, opt_state, info_out

    return OuterStep(optimizer.init, step)


def gradient_update(outer: MetaObjective, optimizer: optax.GradientTransformation) -> OuterStep:
    """One step of an optimiser along the meta-gradient; the KL divergence is not measured.

    It is the only outer step for Reptile, which has no query loss.

    Raises:
        InnerloopError: if `outer` is something else.
    """
    _check_objective(outer, "gradient_update")

    def step(params: Params, opt_state: PyTree, tasks: Task) -> tuple[Params, PyTree, OuterInfo]:
        (after, opt_state), (info, norm) = _gradient_step(outer, optimizer, params, opt_state, tasks)
        info_out = OuterInfo(
            info.outer_loss, info.inner_losses, norm, jnp.zeros_like(norm), jnp.ones_like(norm)
        )
        return after, opt_state, info_out

    return OuterStep(optimizer.init, step)


def _gradient_step(
    outer: MetaObjective,
    optimizer: optax.GradientTransformation,
    params: Params,
    opt_state: PyTree,
    tasks: Task,
) -> tuple[tuple[Params, PyTree], tuple[PyTree, Array]]:
    """One step along the meta-gradient: parameters and optimizer state, and the info and norm of the gradient."""
    grads, info = outer.gradient(params, tasks)
    value_of = lambda params: outer.gradient(params, tasks)[1].outer_loss
    after = apply_optimizer(optimizer, grads, opt_state, params, info.outer_loss, value_of)
    return after, (info, global_norm(grads))
