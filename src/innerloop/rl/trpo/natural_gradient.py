r"""The trust region step: along the natural gradient, as far as the mean KL divergence allows.

    x = (F + damping)^-1 g  by conjugate gradients,   theta - r sqrt(2 delta / x^T (F + damping) x) x

starting at r = 1 and backtracking until the loss has fallen and the divergence is at most delta. If the divergence is
too large, r falls to 0.95 of the value at which it would be delta to leading (quadratic) order; otherwise it shrinks by
the ratio of the line search. If no r is accepted, the parameters are kept. F is the Hessian of the divergence at theta.

Schulman et al. 2015, "Trust Region Policy Optimization", appendix C, arXiv 1502.05477.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from innerloop.config.bounds import POSITIVE, POSITIVE_FRACTION, Bounds, check_bounds
from innerloop.engine.types import Params


@dataclass(frozen=True)
class TrustRegion:
    """Settings of the trust region step; the defaults are those of the published code of MAML.

    Attributes:
        max_kl: delta.
        cg_steps: number of conjugate gradient steps.
        damping: added to the diagonal of F.
        fisher_fraction: fraction of the tasks that F is computed on (TRPO, appendix C.1, uses a tenth of the data);
            the line search always uses all.
        max_backtracks: maximum number of line search steps.
        backtrack_ratio: factor by which a step of the line search shrinks r.

    Raises:
        InnerloopError: if a setting is out of bounds.
    """

    max_kl: Annotated[float, POSITIVE] = 0.01
    cg_steps: Annotated[int, Bounds(1, 10_000)] = 10
    damping: Annotated[float, Bounds(0, 1e30)] = 1e-5
    fisher_fraction: Annotated[float, POSITIVE_FRACTION] = 1.0
    max_backtracks: Annotated[int, Bounds(0, 10_000)] = 15
    backtrack_ratio: Annotated[float, POSITIVE_FRACTION] = 0.8

    def __post_init__(self) -> None:
        check_bounds(self, "TrustRegion.{}".format)


class NaturalStep(NamedTuple):
    """The result of a step: the parameters, their loss and divergence, and r (0: the parameters did not change)."""

    params: Params
    loss: Float[Array, ""]
    kl: Float[Array, ""]
    length: Float[Array, ""]


def _dot(a: Params, b: Params) -> Float[Array, ""]:
    return sum(jnp.vdot(x, y) for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True))  # pyright: ignore[reportReturnType]


def _add_scaled(a: Params, scale: Float[Array, ""] | float, b: Params) -> Params:
    return jax.tree.map(lambda x, y: x + scale * y, a, b)


def conjugate_gradients(product: Callable[[Params], Params], wanted: Params, cg_steps: int) -> Params:
    """Solve A x = wanted approximately by conjugate gradients, starting from x = 0.

    Unlike `jax.scipy.sparse.linalg.cg`, it spends no product on the residual at 0.

    Args:
        product: `p -> A p` for a symmetric positive definite A.
        wanted: the right-hand side.
        cg_steps: the number of products.
    """

    def improve(
        _: Array, carry: tuple[Params, Params, Params, Array]
    ) -> tuple[Params, Params, Params, Array]:
        x, left, p, size = carry
        curved = product(p)
        # With a zero residual the step would be 0 / 0, so take none.
        length = jnp.where(size > 0, size / _dot(p, curved), 0.0)
        left = _add_scaled(left, -length, curved)
        smaller = _dot(left, left)
        return (
            _add_scaled(x, length, p),
            left,
            _add_scaled(left, jnp.where(size > 0, smaller / size, 0.0), p),
            smaller,
        )

    start = (jax.tree.map(jnp.zeros_like, wanted), wanted, wanted, _dot(wanted, wanted))
    return jax.lax.fori_loop(0, cg_steps, improve, start)[0]


def natural_step(
    params: Params,
    gradient: Params,
    before: Float[Array, ""],
    fisher: Callable[[Params], Params],
    judge: Callable[[Params], tuple[Array, Array]],
    region: TrustRegion,
    size: Float[Array, ""] | float = 1.0,
) -> NaturalStep:
    """One trust region step.

    Args:
        params: theta.
        gradient: the gradient of the loss, g.
        before: the loss at theta.
        fisher: `v -> F v`.
        judge: `params -> (loss, divergence)`.
        region: the settings.
        size: shortens the step: delta = size^2 max_kl, since the divergence is quadratic in the length.
    """
    max_kl = region.max_kl * jnp.square(size)
    damped = lambda v: _add_scaled(fisher(v), region.damping, v)
    direction = conjugate_gradients(damped, gradient, region.cg_steps)
    # x^T A x = x^T g for every iterate of conjugate gradients: its residual is orthogonal to it.
    curved = _dot(direction, gradient)
    full = jnp.sqrt(2 * max_kl / jnp.maximum(curved, jnp.finfo(curved.dtype).tiny))

    def at(length: Array) -> NaturalStep:
        there = jax.tree.map(lambda p, x: p - length * full * x, params, direction)
        return NaturalStep(there, *judge(there), length)

    def refused(moved: NaturalStep) -> Array:
        return ~((moved.loss < before) & (moved.kl <= max_kl))

    def search(carry: tuple[Array, NaturalStep]) -> tuple[Array, NaturalStep]:
        tried, moved = carry
        too_far = moved.kl > max_kl
        factor = jnp.where(too_far, 0.95 * jnp.sqrt(max_kl / moved.kl), region.backtrack_ratio)
        return tried + 1, at(moved.length * factor)

    goes_on = lambda carry: refused(carry[1]) & (carry[0] < region.max_backtracks)
    _, last = jax.lax.while_loop(goes_on, search, (jnp.ones((), int), at(jnp.ones_like(full))))
    lost = refused(last)
    stay = NaturalStep(params, before, jnp.zeros_like(last.kl), jnp.zeros_like(last.length))
    return jax.tree.map(lambda a, b: jnp.where(lost, a, b), stay, last)
