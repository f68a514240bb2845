r"""Outer steps: compute the next parameters from the current ones and the samples of many tasks.

`trpo_update` is TRPO at the adapted policies (Finn, Abbeel and Levine 2017, section 5.3, arXiv 1703.03400).
`ppo_update` is ProMP's: several gradient steps on the clipped objective with the same samples (Rothfuss et al. 2019,
algorithm 1, arXiv 1810.06784). `gradient_update` is one step of any Optax optimiser along the meta-gradient.

ProMP's penalty on the divergence of the policies before adaptation is omitted.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int, PyTree

from innerloop.config.bounds import Bounds, check_number
from innerloop.engine.algorithm import Algorithm
from innerloop.engine.optimizer import apply_optimizer, check_optimizer
from innerloop.engine.outer.chunking import mean_in_chunks
from innerloop.engine.pytree import global_norm, shapes_only
from innerloop.engine.types import LossFn, Params, Task
from innerloop.errors import InnerloopError
from innerloop.parallel.mesh import mean_over_devices
from innerloop.rl import surrogates
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


@dataclass(frozen=True)
class MetaObjective:
    """The objective that every outer step improves: the query loss of the adapted policies.

    Attributes:
        algorithm: computes the meta-gradient from the data of a sampler: its `replayed`.
        chunk: number of tasks adapted at a time (None: all).
    """

    algorithm: Algorithm
    chunk: int | None = None

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
        """Mean meta-gradient and info over the tasks of all devices."""
        count = jax.tree.leaves(tasks)[0].shape[0]
        one = lambda task: self.algorithm.meta_grad(params, task)
        return mean_over_devices(mean_in_chunks(one, tasks, self.chunk or count))

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


class OuterStep(NamedTuple):
    """How the outer loop updates the parameters, in the style of Optax.

    Attributes:
        init: `init(params) -> opt_state`.
        step: `step(objective, params, opt_state, tasks) -> (params, opt_state, info)`, called inside the mesh with the
            tasks of one device.
        prepare: `prepare(algorithm) -> algorithm` fills in the query loss that the step needs. It raises an
            InnerloopError if the step cannot use the algorithm.
    """

    init: Callable[[Params], PyTree]
    step: Callable[[MetaObjective, Params, PyTree, Task], tuple[Params, PyTree, OuterInfo]]
    prepare: Callable[[Algorithm], Algorithm] = lambda algorithm: algorithm


def _with_query_loss(algorithm: Algorithm, loss_fn: LossFn, who: str) -> Algorithm:
    """The algorithm with its own loss on the query trajectories, or else with `loss_fn`.

    Away from the policy that acted, the derivatives of `dice` and `log_probability` are those of neither policy, and
    the value of `dice` is the same for all policies, so that no line search can improve it.

    Raises:
        InnerloopError: on behalf of `who`, if it reads no query trajectories, or its own loss is one of these two.
    """
    own = algorithm.outer_loss_fn
    if not algorithm.reads_query:
        wrong = "needs a loss on query trajectories, which this algorithm does not have"
        raise InnerloopError(who, wrong, got=type(algorithm).__name__, hint="use gradient_update")
    if getattr(own, "fn", own) in (surrogates.dice, surrogates.log_probability):
        wrong = "needs a loss with importance weights on the query trajectories"
        hint = "leave `outer_loss_fn` out: the outer step has its own"
        raise InnerloopError(who, wrong, got=getattr(own, "__name__", type(own).__name__), hint=hint)
    return replace(algorithm, outer_loss_fn=loss_fn if own is None else own)


def trpo_update(
    region: TrustRegion = TrustRegion(),  # noqa: B008 (frozen)
    step_scale: optax.GradientTransformation | None = None,
) -> OuterStep:
    """TRPO on the meta-objective, with the KL divergence of the adapted policies.

    The query loss is the algorithm's `outer_loss_fn`, or `surrogates.ratio` if it has none.

    Args:
        region: the trust region.
        step_scale: scales the step: an Optax transformation applied to the number 1, such as
            `optax.scale_by_schedule` (None: the full step). Its state is the state of the outer step.

    Raises:
        InnerloopError: if `region` is something else. `MetaIterations` raises it if the inner loop is differentiated
            in mixed mode, or the algorithm has no query loss or one without importance weights, such as
            `surrogates.dice`.
    """
    if not isinstance(region, TrustRegion):
        raise InnerloopError("trpo_update", "needs a TrustRegion", got=type(region).__name__)
    scale = optax.identity() if step_scale is None else step_scale

    def prepare(algorithm: Algorithm) -> Algorithm:
        inner = algorithm.inner
        if inner.steps and inner.derivative == "mixed":
            hint = "use `inner.derivative` rematerialised or unrolled"
            wrong = "the Fisher product needs forward mode through the inner loop, which mixed mode lacks"
            raise InnerloopError("trpo_update", wrong, got="`inner.derivative` mixed", hint=hint)
        return _with_query_loss(algorithm, surrogates.ratio, "trpo_update")

    def step(
        objective: MetaObjective, params: Params, opt_state: PyTree, tasks: Task
    ) -> tuple[Params, PyTree, OuterInfo]:
        grads, info = objective.gradient(params, tasks)
        count = jax.tree.leaves(tasks)[0].shape[0]
        some = jax.tree.map(lambda x: x[: math.ceil(region.fisher_fraction * count)], tasks)
        own = fisher(objective.adapt, params, some)
        judge = lambda p: objective.judged(p, tasks)
        size: PyTree
        size, opt_state = scale.update(jnp.ones_like(info.outer_loss), opt_state)
        assert isinstance(size, Array)
        moved = natural_step(
            params, grads, info.outer_loss, lambda v: mean_over_devices(own(v)), judge, region, size
        )
        info_out = OuterInfo(info.outer_loss, info.inner_losses, global_norm(grads), moved.kl, moved.length)
        return moved.params, opt_state, info_out

    return OuterStep(scale.init, step, prepare)


def ppo_update(optimizer: optax.GradientTransformation, epochs: int = 5, clip: float = 0.2) -> OuterStep:
    """Several gradient steps on the same samples.

    The query loss is the algorithm's `outer_loss_fn`, or `surrogates.clipped(clip)` if it has none.

    Args:
        optimizer: any Optax optimiser.
        epochs: the number of gradient steps.
        clip: the clipping range of the probability ratio.

    Raises:
        InnerloopError: if `optimizer` is something else, `epochs` is below 1, or `clip` is not above 0.
            `MetaIterations` raises it if the algorithm has no query loss or one without importance weights, such as
            `surrogates.dice`.
    """
    check_optimizer(optimizer, "ppo_update")
    check_number("ppo_update.epochs", epochs, Bounds(1, 10_000), integer=True)
    loss_fn = surrogates.clipped(clip)

    def step(
        objective: MetaObjective, params: Params, opt_state: PyTree, tasks: Task
    ) -> tuple[Params, PyTree, OuterInfo]:
        def once(carry: tuple[Params, PyTree], _: None) -> tuple[tuple[Params, PyTree], tuple]:
            return _gradient_step(objective, optimizer, *carry, tasks)

        (after, opt_state), (info, norms) = jax.lax.scan(once, (params, opt_state), None, length=epochs)
        _, kl = objective.judged(after, tasks)
        first = jax.tree.map(lambda x: x[0], info)
        info_out = OuterInfo(first.outer_loss, first.inner_losses, norms[0], kl, jnp.ones_like(kl))
        return after, opt_state, info_out

    prepare = lambda algorithm: _with_query_loss(algorithm, loss_fn, "ppo_update")
    return OuterStep(optimizer.init, step, prepare)


def gradient_update(optimizer: optax.GradientTransformation) -> OuterStep:
    """One step of an optimiser along the algorithm's meta-gradient; the KL divergence is not measured.

    It is the only outer step for Reptile, which has no query loss.

    Raises:
        InnerloopError: if `optimizer` is something else.
    """
    check_optimizer(optimizer, "gradient_update")

    def step(
        objective: MetaObjective, params: Params, opt_state: PyTree, tasks: Task
    ) -> tuple[Params, PyTree, OuterInfo]:
        (after, opt_state), (info, norm) = _gradient_step(objective, optimizer, params, opt_state, tasks)
        info_out = OuterInfo(
            info.outer_loss, info.inner_losses, norm, jnp.zeros_like(norm), jnp.ones_like(norm)
        )
        return after, opt_state, info_out

    return OuterStep(optimizer.init, step)


def _gradient_step(
    objective: MetaObjective,
    optimizer: optax.GradientTransformation,
    params: Params,
    opt_state: PyTree,
    tasks: Task,
) -> tuple[tuple[Params, PyTree], tuple[PyTree, Array]]:
    """One step along the meta-gradient: parameters and optimizer state, and the info and norm of the gradient."""
    grads, info = objective.gradient(params, tasks)
    value_of = lambda params: objective.gradient(params, tasks)[1].outer_loss
    after = apply_optimizer(optimizer, grads, opt_state, params, info.outer_loss, value_of)
    return after, (info, global_norm(grads))
