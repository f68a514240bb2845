r"""The trust region step: as far along the natural gradient as the mean KL divergence allows.

    x = (F + damping)^-1 g  by conjugate gradients,   theta - r sqrt(2 delta / x^T (F + damping) x) x

with r = 1, and then smaller until the loss has fallen and the divergence is at most delta: r falls by the line search's
ratio, or at once to 0.95 of where the divergence, quadratic to leading order, would be delta. Where none will do, the
parameters stay. F is the Hessian of the divergence at theta.

Schulman et al. 2015, "Trust Region Policy Optimization", appendix C, arXiv 1502.05477.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from innerloop.engine.types import Params


@dataclass(frozen=True)
class TrustRegion:
    """The published code's settings: delta, conjugate gradients, damping, and the line search.

    `share` is the part of the tasks whose divergence makes F (TRPO, appendix C.1, takes a tenth of the data); the
    line search judges by all of them.
    """

    max_kl: float = 0.01
    iterations: int = 10
    damping: float = 1e-5
    share: float = 1.0
    backtracks: int = 15
    ratio: float = 0.8


class Moved(NamedTuple):
    """Where the step led: parameters, loss and divergence there, and the length r (0: nowhere)."""

    params: Params
    loss: Float[Array, ""]
    kl: Float[Array, ""]
    length: Float[Array, ""]


def _dot(a: Params, b: Params) -> Float[Array, ""]:
    """The inner product of two trees."""
    return sum(jnp.vdot(x, y) for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True))  # pyright: ignore[reportReturnType]


def _add_scaled(a: Params, scale: Float[Array, ""] | float, b: Params) -> Params:
    """a + scale b."""
    return jax.tree.map(lambda x, y: x + scale * y, a, b)


def conjugate_gradients(product: Callable[[Params], Params], wanted: Params, iterations: int) -> Params:
    """An approximate solution x of A x = wanted from as many products A p; A symmetric and positive definite.

    It starts at x = 0, where the residual is known, so that no product is spent on it (jax.scipy's spends one).
    """

    def improve(
        _: Array, carry: tuple[Params, Params, Params, Array]
    ) -> tuple[Params, Params, Params, Array]:
        x, left, p, size = carry
        curved = product(p)
        # Where nothing is left, 0 / 0 would be: the step is then nothing.
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
    return jax.lax.fori_loop(0, iterations, improve, start)[0]


def natural_step(
    params: Params,
    gradient: Params,
    before: Float[Array, ""],
    fisher: Callable[[Params], Params],
    judge: Callable[[Params], tuple[Array, Array]],
    region: TrustRegion,
    size: Float[Array, ""] | float = 1.0,
) -> Moved:
    """One step from where the loss is `before`; `fisher(v)` is F v, `judge(params)` the loss and the divergence.

    `size` shortens the step: the divergence allowed, quadratic in the length, is then delta = size^2 max_kl.
    """
    max_kl = region.max_kl * jnp.square(size)
    damped = lambda v: _add_scaled(fisher(v), region.damping, v)
    direction = conjugate_gradients(damped, gradient, region.iterations)
    # x^T A x = x^T g for every iterate of conjugate gradients: its residual is orthogonal to it.
    curved = _dot(direction, gradient)
    full = jnp.sqrt(2 * max_kl / jnp.maximum(curved, jnp.finfo(curved.dtype).tiny))

    def at(length: Array) -> Moved:
        there = jax.tree.map(lambda p, x: p - length * full * x, params, direction)
        return Moved(there, *judge(there), length)

    def refused(moved: Moved) -> Array:
        return ~((moved.loss < before) & (moved.kl <= max_kl))

    def search(carry: tuple[Array, Moved]) -> tuple[Array, Moved]:
        tried, moved = carry
        too_far = moved.kl > max_kl
        factor = jnp.where(too_far, 0.95 * jnp.sqrt(max_kl / moved.kl), region.ratio)
        return tried + 1, at(moved.length * factor)

    goes_on = lambda carry: refused(carry[1]) & (carry[0] < region.backtracks)
    _, last = jax.lax.while_loop(goes_on, search, (jnp.ones((), int), at(jnp.ones_like(full))))
    lost = refused(last)
    stay = Moved(params, before, jnp.zeros_like(last.kl), jnp.zeros_like(last.length))
    return jax.tree.map(lambda a, b: jnp.where(lost, a, b), stay, last)
