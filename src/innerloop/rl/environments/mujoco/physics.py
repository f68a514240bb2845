"""One step of a body's physics by either engine, and what was measured then.

On a CPU MuJoCo's C engine does it, on an accelerator MJX, which is the same physics as a JAX program. Both take and
give `[qpos, qvel, warm start]` and follow it by the same measurements.
"""

from types import ModuleType
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from innerloop.rl.environments.mujoco import c_engine
from innerloop.rl.environments.mujoco.models import Body

Engine = Literal["auto", "c", "mjx"]

FASTEST = 1e3
"""A velocity beyond it (m/s or rad/s) is an explosion: a hundred times what these bodies reach."""


class Physics(NamedTuple):
    """The state of a body, and its centre of mass, that one's velocity, and the clipped contact forces."""

    qpos: Float[Array, " positions"]
    qvel: Float[Array, " velocities"]
    warm_start: Float[Array, " velocities"]
    com: Float[Array, " 3"]
    com_velocity: Float[Array, " 3"]
    forces: Float[Array, " forces"]


def at_rest(body: Body, engine: Engine, qpos: Array, qvel: Array) -> Physics:
    """What is measured in a given state, before any step."""
    state = jnp.concatenate([qpos, qvel, jnp.zeros_like(qvel)])
    return _unpacked(body, _chosen(engine).sense(body, state))


def step(body: Body, engine: Engine, before: Physics, action: Float[Array, " action"]) -> Physics:
    """The next state; NaN actions count as none, as in MuJoCo itself."""
    state = jnp.concatenate([before.qpos, before.qvel, before.warm_start])
    return _unpacked(body, _chosen(engine).advance(body, state, jnp.nan_to_num(action)))


def _chosen(engine: Engine) -> ModuleType:
    """The engine's module."""
    if engine == "c" or (engine == "auto" and jax.default_backend() == "cpu"):
        return c_engine
    from innerloop.rl.environments.mujoco import mjx_engine

    return mjx_engine


def _unpacked(body: Body, numbers: Float[Array, " numbers"]) -> Physics:
    """The parts of what an engine gives."""
    p, v = body.positions, body.velocities
    ends = (p, p + v, p + 2 * v, p + 2 * v + 3, p + 2 * v + 6)
    *state, forces = jnp.split(numbers, ends)
    return Physics._make([*state, jnp.clip(forces, -1, 1)])


def sound(after: Physics) -> Bool[Array, ""]:
    """Whether the numbers are finite and the body no faster than a body can be."""
    finite = jnp.all(jnp.stack([jnp.all(jnp.isfinite(x)) for x in after]))
    return finite & jnp.all(jnp.abs(after.qvel) < FASTEST)
