r"""iMAML: the meta-gradient by implicit differentiation at the solution of a proximal inner problem.

    w = argmin L(w; support) + lambda/2 |w - theta|^2
    g = (I + H / lambda)^{-1} grad L(w; query),   H = Hessian of L(.; support) at w

The solution depends only on theta, not on how it was found. So no derivative goes through the inner loop, and memory
does not grow with the number of steps. The linear system is solved by conjugate gradients with Hessian-vector products.
Parameters f that are not adapted have the gradient

    grad_f L(w, f; query) - (d^2 L(w, f; support) / df dw) (H + lambda I)^{-1} grad_w L(w, f; query).

The formula holds at the solution, so take enough inner steps; `IMAML.residuals` tells whether they are. I + H / lambda
must be positive definite: lambda must exceed minus the smallest eigenvalue of H.

Rajeswaran, Finn, Kakade and Levine 2019, "Meta-Learning with Implicit Gradients", algorithms 1 and 2, arXiv 1909.04630.
Their code solves another system, (2 I + H / (lambda + 10)) x = g; this is the paper's. Left out: learning lambda.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.scipy.sparse.linalg import cg
from jaxtyping import Array, Float, PyTree

from innerloop.config.bounds import POSITIVE, check_argument
from innerloop.engine.algorithm import Algorithm, MetaInfo
from innerloop.engine.inner.inner_loop import InnerLoop
from innerloop.engine.inner.unroll import Trajectory
from innerloop.engine.keys import MaybeKey
from innerloop.engine.losses.loss import Loss
from innerloop.engine.optimizer import update_of
from innerloop.engine.pytree import combine, global_norm, partition, subtract
from innerloop.engine.types import LossFn, Params, Task
from innerloop.errors import InnerloopError, check_count
from innerloop.parallel.precision import with_exact_products
from innerloop.parallel.varying import varying_axes, varying_over


class Residuals(NamedTuple):
    """How far iMAML is from the solutions of its two problems on one task: 0 at a solution.

    Attributes:
        inner: the norm of the inner problem's gradient at the adapted parameters, relative to that at the start.
        system: the norm of the residual of the linear system, relative to that of its right-hand side.
    """

    inner: Float[Array, ""]
    system: Float[Array, ""]


class _Solved(NamedTuple):
    """The two solutions on one task, and the functions that they are solutions of."""

    trajectory: Trajectory
    fast: PyTree
    frozen: PyTree
    outer: tuple[Array, PyTree]
    slopes: tuple[PyTree, PyTree]
    solution: PyTree
    support_slope: Callable[[PyTree, PyTree], PyTree]
    system: Callable[[PyTree], PyTree]


@dataclass(frozen=True)
class IMAML(Algorithm):
    """The algorithm that `imaml` returns."""

    second_order = False

    proximal: float = 1.0
    cg_steps: int = 20

    def __post_init__(self) -> None:
        super().__post_init__()
        check_argument("imaml", "proximal", self.proximal, POSITIVE)
        check_count("imaml", "cg_steps", self.cg_steps)
        if isinstance(self.loss_fn, Loss) and (self.loss_fn.random or self.loss_fn.stateful):
            hint = "use maml, which differentiates the steps that were taken"
            wrong = "the loss must be a function of parameters and batch alone"
            raise InnerloopError("imaml", wrong, hint=hint)
        if self.inner.stream:
            hint = "use maml, or give the whole support set at every step"
            wrong = "the solution is that of one support set, not of a stream"
            raise InnerloopError("imaml", wrong, hint=hint)

    def inner_for(self, meta_params: Params) -> InnerLoop:
        """The inner loop on the support loss plus the proximal term, which `Trajectory.losses` do not include."""
        start, _ = partition(meta_params, self.inner.select)
        return replace(self.inner, rule=with_proximal_term(self.inner.rule, start, self.proximal))

    def meta_grad(self, meta_params: Params, task: Task, *, key: MaybeKey = None) -> tuple[Params, MetaInfo]:
        """The implicit derivative of the query loss."""
        s = self._solve(meta_params, task, key)
        (cross,) = jax.vjp(lambda frozen: s.support_slope(s.fast, frozen), s.frozen)[1](s.solution)
        rest = jax.tree.map(lambda d, c: d - c / self.proximal, s.slopes[1], cross)
        loss, aux = s.outer
        return combine(s.solution, rest), MetaInfo(loss, s.trajectory.losses, aux)

    @with_exact_products
    def residuals(self, meta_params: Params, task: Task, *, key: MaybeKey = None) -> Residuals:
        """Whether the inner loop and the conjugate gradients have converged on a task; if not, `meta_grad` is wrong.

        Args:
            meta_params: the meta-parameters.
            task: one task.
            key: the task's key, for a random outer loss.

        Raises:
            InnerloopError: as in `unroll`.
        """
        given = meta_params, task, key
        meta_params, task, key = varying_over(varying_axes(given), given)
        s = self._solve(meta_params, task, key)
        start, _ = partition(meta_params, self.inner.select)
        pulled = lambda g, w, w0: g + self.proximal * (w - w0)
        inner = jax.tree.map(pulled, s.support_slope(s.fast, s.frozen), s.fast, start)
        system = subtract(s.system(s.solution), s.slopes[0])
        relative = lambda a, b: global_norm(a) / jnp.maximum(global_norm(b), jnp.finfo(s.outer[0].dtype).tiny)
        return Residuals(relative(inner, s.support_slope(start, s.frozen)), relative(system, s.slopes[0]))

    def _solve(self, meta_params: Params, task: Task, key: MaybeKey) -> _Solved:
        """Run the inner loop, and solve the linear system at its end."""
        trajectory = self.trajectory(meta_params, task.support)
        fast, frozen = partition(trajectory.adapted, self.inner.select)
        query = lambda fast, frozen: self.query(combine(fast, frozen), task.query, key=key)
        outer, slopes = jax.value_and_grad(query, (0, 1), has_aux=True)(fast, frozen)
        slope = jax.grad(lambda fast, frozen: self.loss_fn(combine(fast, frozen), task.support))
        hessian = lambda p: jax.jvp(lambda fast: slope(fast, frozen), (fast,), (p,))[1]
        system = lambda p: jax.tree.map(lambda x, hx: x + hx / self.proximal, p, hessian(p))
        tolerance = float(jnp.finfo(outer[0].dtype).eps)
        solution, _ = cg(system, slopes[0], tol=tolerance, maxiter=self.cg_steps)
        return _Solved(trajectory, fast, frozen, outer, slopes, solution, slope, system)


def with_proximal_term(
    rule: optax.GradientTransformation, start: PyTree, proximal: float
) -> optax.GradientTransformationExtraArgs:
    """The rule, applied to the loss plus the proximal term `proximal / 2 |w - start|^2`."""
    term = lambda w: (
        proximal / 2 * sum(jax.tree.leaves(jax.tree.map(lambda a, b: jnp.sum((a - b) ** 2), w, start)))
    )
    inner = update_of(rule)

    def update(
        grads: PyTree, state: PyTree, w: PyTree, *, value: Array, value_fn: Callable, **others: PyTree
    ) -> tuple[PyTree, PyTree]:
        grads = jax.tree.map(lambda g, a, b: g + proximal * (a - b), grads, w, start)
        others |= {"value": value + term(w), "value_fn": lambda w: value_fn(w) + term(w), "grad": grads}
        return inner(grads, state, w, **others)

    return optax.GradientTransformationExtraArgs(rule.init, update)  # pyright: ignore[reportArgumentType]


def imaml(
    loss_fn: LossFn,
    inner: InnerLoop,
    *,
    proximal: float = 1.0,
    cg_steps: int = 20,
    outer_loss_fn: LossFn | None = None,
) -> IMAML:
    """iMAML (Rajeswaran et al. 2019).

    Args:
        loss_fn: the loss, a mean over examples.
        inner: the inner loop, with enough steps to reach the solution; its rule also gets the proximal term's gradient.
        proximal: lambda, the strength of the pull towards the initialisation.
        cg_steps: the maximum number of conjugate gradient steps.
        outer_loss_fn: the loss on the query set (None: `loss_fn`).

    Raises:
        InnerloopError: if `proximal` is not above 0, `cg_steps` is below 1, or the loss is random or has
            state or the support set is a stream, for which the solution is not defined.
    """
    return IMAML(loss_fn, inner, outer_loss_fn, proximal, cg_steps)
