r"""Half-cheetah and ant, rewarded for running forwards or backwards, or at a speed that is not observed.

    half-cheetah, direction:  r = d v - 0.05 |a|^2
    half-cheetah, velocity:   r = -|v - g| - 0.05 |a|^2
    ant, direction:           r = d v     - 0.005 |a|^2 - 0.0005 |clip(f)|^2 + 0.05
    ant, velocity:            r = 1 - |v - g| - 0.005 |a|^2 - 0.0005 |clip(f)|^2 + 0.05

v is the forward velocity of the centre of mass, f the contact forces on every part of the body, clipped to +-1. The
direction d is 1 or -1, equally likely; the speed g is uniform on [0, 2] for the half-cheetah and on [0, 3] for the
ant. The ant's trajectory ends when its torso leaves the heights 0.2 to 1. Actions are clipped to [-1, 1].

The half-cheetah observes qpos without its position along the track, qvel, and the centre of mass (20 numbers); the ant
observes qpos, qvel, clipped contact forces, the rotation of its torso and the centre of mass (119 numbers).

Finn, Abbeel and Levine 2017, section 5.3, arXiv 1703.03400; published code `half_cheetah_env_rand*.py` and
`ant_env_rand*.py`. Bodies, frame skip and the distribution of the initial state are Gymnasium's; the published code
uses those of an older simulator.
"""

from dataclasses import dataclass, field
from typing import Annotated, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, PRNGKeyArray

from innerloop.config.bounds import COUNTS, check_bounds
from innerloop.errors import check_choice
from innerloop.rl.environments.base import Transition, VectorTasks
from innerloop.rl.environments.mujoco import c_engine
from innerloop.rl.environments.mujoco.models import ANT, HALF_CHEETAH, SUBSTEPS, Body, load_model
from innerloop.rl.environments.mujoco.physics import Engine, Physics, initial_physics, is_stable, step

BODIES = {"half-cheetah": HALF_CHEETAH, "ant": ANT}
TOP_SPEED = {"half-cheetah": 2.0, "ant": 3.0}
MIN_HEIGHT, MAX_HEIGHT = 0.2, 1.0
"""Heights of the ant's torso, in metres, outside which its trajectory ends."""
RESET_NOISE = 0.1
"""Noise of the initial state: qpos varies uniformly within +- this, qvel is normal with this standard deviation."""


class LocomotionState(NamedTuple):
    """The body's physics, and the target direction or speed."""

    physics: Physics
    task: Float[Array, " 1"]


@dataclass(frozen=True)
class Locomotion(VectorTasks):
    """A body rewarded for its direction or speed; the task is the target direction or speed, a number.

    If the physics explodes or an action is not finite, the reward is NaN and the state does not change; the sampler
    drops the trajectory from there on.

    Attributes:
        body: the half-cheetah or the ant.
        goal: what the reward depends on.
        horizon: steps after which a trajectory is cut.
        engine: "auto" is MuJoCo's C engine on a CPU and MJX elsewhere.
        discrete: always false.

    Raises:
        InnerloopError: if a choice is unknown, the horizon is below 1, or MuJoCo or Gymnasium is not installed.
    """

    body: Literal["half-cheetah", "ant"] = "half-cheetah"
    goal: Literal["direction", "velocity"] = "direction"
    horizon: Annotated[int, COUNTS] = 200
    engine: Engine = "auto"
    discrete: bool = field(default=False, init=False)

    def __post_init__(self) -> None:
        choices = {"body": BODIES, "goal": ("direction", "velocity"), "engine": ("auto", "c", "mjx")}
        for name, known in choices.items():
            check_choice("Locomotion", name, getattr(self, name), known)
        check_bounds(self, "Locomotion.{}".format)
        load_model(self.parts)  # fail early if a package is missing, before anything is compiled

    @property
    def parts(self) -> Body:
        """The body's model."""
        return BODIES[self.body]

    @property
    def observation_size(self) -> int:
        """20 for the half-cheetah, 119 for the ant."""
        p, cheetah = self.parts, self.body == "half-cheetah"
        return p.positions + p.velocities + 3 + (-1 if cheetah else p.sensed_size - 6 + 9)

    @property
    def action_size(self) -> int:
        """Number of motors."""
        return self.parts.actuators

    def sample_task(self, key: PRNGKeyArray) -> Float[Array, " 1"]:
        """A direction, 1 or -1, or a speed in m/s."""
        if self.goal == "direction":
            return jnp.where(jax.random.bernoulli(key, shape=(1,)), 1.0, -1.0)
        return jax.random.uniform(key, (1,), maxval=self.top_speed)

    @property
    def top_speed(self) -> float:
        """The highest speed of a task, in m/s."""
        return TOP_SPEED[self.body]

    @property
    def seconds(self) -> float:
        """Duration of a step, in seconds."""
        return SUBSTEPS * float(load_model(self.parts).opt.timestep)

    def pose(self, observation: np.ndarray) -> np.ndarray:
        """qpos reconstructed from an observation; the half-cheetah's position follows from its centre of mass."""
        if self.body == "ant":
            return observation[: self.parts.positions]
        p, v = self.parts.positions, self.parts.velocities
        pose = np.concatenate([[0.0], observation[: p - 1]])
        at_zero = c_engine.step_batch(
            self.parts, np.pad(pose, (0, 2 * v))[None], np.zeros((1, self.action_size)), 0
        )
        pose[0] = observation[p - 1 + v] - at_zero[0, -6]
        return pose

    def reset(
        self, key: PRNGKeyArray, task: Float[Array, " 1"]
    ) -> tuple[LocomotionState, Float[Array, " observation"]]:
        """Start near the model's default pose, with noise."""
        for_place, for_speed = jax.random.split(key)
        rest = jnp.asarray(load_model(self.parts).qpos0, task.dtype)
        qpos = rest + jax.random.uniform(for_place, rest.shape, task.dtype, -RESET_NOISE, RESET_NOISE)
        qvel = RESET_NOISE * jax.random.normal(for_speed, (self.parts.velocities,), task.dtype)
        first = initial_physics(self.parts, self.engine, qpos, qvel)
        return LocomotionState(first, task), self._observe(first)

    def step(self, key: PRNGKeyArray, state: LocomotionState, action: Float[Array, " action"]) -> Transition:
        """Five physics steps with one action, and their reward."""
        action = jnp.clip(action, -1.0, 1.0)
        after = step(self.parts, self.engine, state.physics, action)
        good = is_stable(after) & jnp.all(jnp.isfinite(action))
        after = jax.tree.map(lambda new, old: jnp.where(good, new, old), after, state.physics)
        reward = jnp.where(good, self._reward(after, state.task[0], action), jnp.nan)
        done = ~good | self._has_fallen(after)
        return Transition(LocomotionState(after, state.task), self._observe(after), reward, done)

    def _reward(self, now: Physics, task: Float[Array, ""], action: Array) -> Float[Array, ""]:
        v = now.com_velocity[0]
        progress = task * v if self.goal == "direction" else -jnp.abs(v - task)
        effort = jnp.sum(jnp.square(action))
        if self.body == "half-cheetah":
            return progress - 0.05 * effort
        standing = 0.05 if self.goal == "direction" else 1.05
        return progress + standing - 0.005 * effort - 0.0005 * jnp.sum(jnp.square(now.forces))

    def _has_fallen(self, now: Physics) -> Bool[Array, ""]:
        height = now.qpos[2]
        return jnp.asarray(self.body == "ant") & ((height < MIN_HEIGHT) | (height > MAX_HEIGHT))

    def _observe(self, now: Physics) -> Float[Array, " observation"]:
        if self.body == "half-cheetah":
            return jnp.concatenate([now.qpos[1:], now.qvel, now.com])
        return jnp.concatenate(
            [now.qpos, now.qvel, now.forces, _rotation_matrix(now.qpos[3:7]).ravel(), now.com]
        )


def _rotation_matrix(quaternion: Float[Array, " 4"]) -> Float[Array, "3 3"]:
    """The rotation matrix of a quaternion (w, x, y, z), which need not have length 1."""
    w, x, y, z = quaternion / jnp.linalg.norm(quaternion)
    cross = jnp.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    return jnp.eye(3, dtype=cross.dtype) + 2 * (w * cross + cross @ cross)
