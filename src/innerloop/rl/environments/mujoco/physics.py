"""One environment step of physics on either engine, and the sensor values after it.

On a CPU the engine is MuJoCo's C engine; on an accelerator it is MJX, the same physics as a JAX program. Both take
`[qpos, qvel, warm start]`, and return the same, followed by the same sensor values.
"""

from types import ModuleType
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from innerloop.rl.environments.mujoco import c_engine
from innerloop.rl.environments.mujoco.models import Body

Engine = Literal["auto", "c", "mjx"]

MAX_SPEED = 1e3
"""Velocity (m/s or rad/s) beyond which the physics counts as exploded: a hundred times what these bodies reach."""


class Physics(NamedTuple):
    """The state of a body, the position and velocity of its centre of mass, and the clipped contact forces."""

    qpos: Float[Array, " positions"]
    qvel: Float[Array, " velocities"]
    warm_start: Float[Array, " velocities"]
    com: Float[Array, " 3"]
    com_velocity: Float[Array, " 3"]
    forces: Float[Array, " forces"]


def initial_physics(body: Body, engine: Engine, qpos: Array, qvel: Array) -> Physics:
    """The physics in a given state, before any step."""
    state = jnp.concatenate([qpos, qvel, jnp.zeros_like(qvel)])
    return _unpack(body, _engine_module(engine).sense(body, state))


def step(body: Body, engine: Engine, before: Physics, action: Float[Array, " action"]) -> Physics:
    """The next state; NaN in an action counts as 0, as in MuJoCo."""
    state = jnp.concatenate([before.qpos, before.qvel, before.warm_start])
    return _unpack(body, _engine_module(engine).advance(body, state, jnp.nan_to_num(action)))


def _engine_module(engine: Engine) -> ModuleType:
    """The engine's module."""
    if engine == "c" or (engine == "auto" and jax.default_backend() == "cpu"):
        return c_engine
    from innerloop.rl.environments.mujoco import mjx_engine

    return mjx_engine


def _unpack(body: Body, numbers: Float[Array, " numbers"]) -> Physics:
    p, v = body.positions, body.velocities
    ends = (p, p + v, p + 2 * v, p + 2 * v + 3, p + 2 * v + 6)
    *state, forces = jnp.split(numbers, ends)
    return Physics._make([*state, jnp.clip(forces, -1, 1)])


def is_stable(after: Physics) -> Bool[Array, ""]:
    """Whether all values are finite and all velocities below `MAX_SPEED`."""
    finite = jnp.all(jnp.stack([jnp.all(jnp.isfinite(x)) for x in after]))
    return finite & jnp.all(jnp.abs(after.qvel) < MAX_SPEED)
