r"""The linear feature baseline: a ridge regression of returns on features of observation and time.

    phi_t = [o, o^2, t, t^2, t^3, 1],  o clipped to +-10, t in hundreds of steps
    w = argmin |phi w - R|^2 + ridge |w|^2,   V(s_t) = phi_t w

fitted for each task in each iteration to the trajectories that it is used for (Duan et al. 2016, "Benchmarking Deep
Reinforcement Learning", arXiv 1604.06778; published code of MAML, `linear_feature_baseline.py`). Only the fitted values
are needed, so the returns are projected onto the columns of the stacked system [phi; sqrt(ridge)], orthogonalised one
after the other (modified Gram-Schmidt): the normal equations of t, t^2 and t^3 lose too many digits in float32, and
XLA's QR decomposition takes a hundred times as long on a CPU.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from innerloop.rl.distributions import PerStep
from innerloop.rl.rollout import steps_since_start

RIDGE = 1e-5
"""Weight of the penalty on the coefficients."""


def _features(
    observations: Float[Array, "trajectories steps observation"], ends: PerStep | None = None
) -> Float[Array, "trajectories steps features"]:
    """[o, o^2, t, t^2, t^3, 1] for every step, with t counted from the start of its trajectory."""
    o = jnp.clip(observations, -10, 10)
    trajectories, steps, _ = o.shape
    age = jnp.arange(steps) if ends is None else steps_since_start(ends)
    t = jnp.broadcast_to(age[..., None].astype(o.dtype) / 100, (trajectories, steps, 1))
    return jnp.concatenate([o, jnp.square(o), t, t**2, t**3, jnp.ones_like(t)], -1)


def linear_baseline(
    observations: Float[Array, "trajectories steps observation"],
    returns: PerStep,
    mask: PerStep,
    ends: PerStep | None = None,
) -> PerStep:
    """Values V(s_t) at every step, from a ridge regression on the returns of the same trajectories.

    Args:
        observations: observations of one task.
        returns: discounted returns R_t.
        mask: 1 for every step that was taken; other steps are left out of the fit.
        ends: 1 at the last step of each trajectory (None: one trajectory per row).

    Returns:
        The fitted values, `[trajectories, steps]`.
    """
    phi = _features(observations, ends)
    size = phi.shape[-1]
    rows = (phi * mask[..., None]).reshape(-1, size)
    penalty = jnp.sqrt(jnp.asarray(RIDGE, phi.dtype)) * jnp.eye(size, dtype=phi.dtype)
    columns = jnp.concatenate([rows, penalty])
    wanted = jnp.concatenate([(returns * mask).ravel(), jnp.zeros(size, phi.dtype)])
    fitted = _project(columns.T, wanted)[: rows.shape[0]]
    return fitted.reshape(mask.shape)


def _project(columns: Float[Array, "features rows"], wanted: Float[Array, " rows"]) -> Float[Array, " rows"]:
    """The projection of `wanted` onto the span of the columns, which the penalty keeps linearly independent."""

    def take(i: Array, carry: tuple[Array, Array]) -> tuple[Array, Array]:
        columns, left = carry
        unit = columns[i] / jnp.sqrt(jnp.sum(jnp.square(columns[i])))
        return columns - jnp.outer(columns @ unit, unit), left - (unit @ left) * unit

    _, left = jax.lax.fori_loop(0, columns.shape[0], take, (columns, wanted))
    return wanted - left
