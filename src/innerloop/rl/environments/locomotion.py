r"""Half-cheetah and ant, paid for running forwards or backwards, or at a speed that they are not told.

    half-cheetah, direction:  r = d v - 0.05 |a|^2
    half-cheetah, velocity:   r = -|v - g| - 0.05 |a|^2
    ant, direction:           r = d v     - 0.005 |a|^2 - 0.0005 |clip(f)|^2 + 0.05
    ant, velocity:            r = 1 - |v - g| - 0.005 |a|^2 - 0.0005 |clip(f)|^2 + 0.05

v is the forward velocity of the centre of mass, f the contact forces on every part of the body, clipped to +-1. The
direction d is 1 or -1, equally likely; the speed g is uniform on [0, 2] for the half-cheetah and on [0, 3] for the
ant. The ant's trajectory ends where its torso leaves the heights 0.2 to 1. Actions are clipped to [-1, 1].

The half-cheetah sees qpos without its place along the track, qvel, and the centre of mass (20 numbers); the ant sees
qpos, qvel, clipped contact forces, the rotation of its torso and the centre of mass (119 numbers).

Finn, Abbeel and Levine 2017, section 5.3, arXiv 1703.03400; published code `half_cheetah_env_rand*.py` and
`ant_env_rand*.py`. Bodies, frame skip and the distribution of the first state are Gymnasium's, where the published
code has those of an older simulator.
"""

from dataclasses import dataclass
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, PRNGKeyArray

from innerloop.errors import InnerloopError
from innerloop.rl.environments.base import Transition
from innerloop.rl.environments.mujoco import c_engine
from innerloop.rl.environments.mujoco.models import ANT, HALF_CHEETAH, SUBSTEPS, Body, load_model
from innerloop.rl.environments.mujoco.physics import Engine, Physics, at_rest, sound, step

BODIES = {"half-cheetah": HALF_CHEETAH, "ant": ANT}
TOP_SPEED = {"half-cheetah": 2.0, "ant": 3.0}
LOWEST, HIGHEST = 0.2, 1.0
"""Heights of the ant's torso between which its trajectory goes on."""
NOISE = 0.1
"""Of the first state: qpos uniform within it, qvel normal with it as deviation."""


class LocomotionState(NamedTuple):
    """The body's physics, and the direction or speed that is wanted."""

    physics: Physics
    task: Float[Array, " 1"]


@dataclass(frozen=True)
class Locomotion:
    """A body that is paid for a direction or for a speed; the task is that number.

    engine: "auto" is the C engine on a CPU and MJX elsewhere. Where physics explodes or an action is not finite, the
    reward is NaN and the state stays the one before: collection drops the trajectory from there on.
    """

    body: Literal["half-cheetah", "ant"] = "half-cheetah"
    goal: Literal["direction", "velocity"] = "direction"
    horizon: int = 200
    engine: Engine = "auto"
    discrete: bool = False

    def __post_init__(self) -> None:
        choices = {"body": BODIES, "goal": ("direction", "velocity"), "engine": ("auto", "c", "mjx")}
        for name, known in choices.items():
            if getattr(self, name) not in known:
                do = "choose " + " or ".join(known)
                raise InnerloopError(
                    "Locomotion", f"`{name}` is unknown", got=repr(getattr(self, name)), do=do
                )
        if self.horizon < 1:
            raise InnerloopError("Locomotion", "`horizon` must be 1 or more", got=self.horizon)
        load_model(self.parts)  # now: a missing package is told before anything is compiled

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
        """Motors."""
        return self.parts.actuators

    def sample_task(self, key: PRNGKeyArray) -> Float[Array, " 1"]:
        """A direction or a speed."""
        if self.goal == "direction":
            return jnp.where(jax.random.bernoulli(key, shape=(1,)), 1.0, -1.0)
        return jax.random.uniform(key, (1,), maxval=self.top_speed)

    @property
    def top_speed(self) -> float:
        """The highest speed that may be wanted."""
        return TOP_SPEED[self.body]

    @property
    def seconds(self) -> float:
        """Time that one step takes."""
        return SUBSTEPS * float(load_model(self.parts).opt.timestep)

    def pose(self, observation: np.ndarray) -> np.ndarray:
        """qpos, read back from what was seen of it; the half-cheetah's place from its centre of mass."""
        if self.body == "ant":
            return observation[: self.parts.positions]
        p, v = self.parts.positions, self.parts.velocities
        pose = np.concatenate([[0.0], observation[: p - 1]])
        at_zero = c_engine.stepped(
            self.parts, np.pad(pose, (0, 2 * v))[None], np.zeros((1, self.action_size)), 0
        )
        pose[0] = observation[p - 1 + v] - at_zero[0, -6]
        return pose

    def task_vector(self, task: Float[Array, " 1"]) -> Float[Array, " 1"]:
        """The direction or speed."""
        return task

    def reset(
        self, key: PRNGKeyArray, task: Float[Array, " 1"]
    ) -> tuple[LocomotionState, Float[Array, " observation"]]:
        """Near the model's own pose, a little moved."""
        for_place, for_speed = jax.random.split(key)
        rest = jnp.asarray(load_model(self.parts).qpos0, task.dtype)
        qpos = rest + jax.random.uniform(for_place, rest.shape, task.dtype, -NOISE, NOISE)
        qvel = NOISE * jax.random.normal(for_speed, (self.parts.velocities,), task.dtype)
        first = at_rest(self.parts, self.engine, qpos, qvel)
        return LocomotionState(first, task), self.seen(first)

    def step(self, key: PRNGKeyArray, state: LocomotionState, action: Float[Array, " action"]) -> Transition:
        """Five steps of physics with one action, and what they are worth."""
        action = jnp.clip(action, -1.0, 1.0)
        after = step(self.parts, self.engine, state.physics, action)
        good = sound(after) & jnp.all(jnp.isfinite(action))
        after = jax.tree.map(lambda new, old: jnp.where(good, new, old), after, state.physics)
        reward = jnp.where(good, self.reward(after, state.task[0], action), jnp.nan)
        done = ~good | self.fallen(after)
        return Transition(LocomotionState(after, state.task), self.seen(after), reward, done)

    def reward(self, now: Physics, task: Float[Array, ""], action: Array) -> Float[Array, ""]:
        """What the step that led to `now` is worth."""
        v = now.com_velocity[0]
        paid = task * v if self.goal == "direction" else -jnp.abs(v - task)
        effort = jnp.sum(jnp.square(action))
        if self.body == "half-cheetah":
            return paid - 0.05 * effort
        standing = 0.05 if self.goal == "direction" else 1.05
        return paid + standing - 0.005 * effort - 0.0005 * jnp.sum(jnp.square(now.forces))

    def fallen(self, now: Physics) -> Bool[Array, ""]:
        """Whether the ant lies or leaps too high; the half-cheetah goes on in any pose."""
        height = now.qpos[2]
        return jnp.asarray(self.body == "ant") & ((height < LOWEST) | (height > HIGHEST))

    def seen(self, now: Physics) -> Float[Array, " observation"]:
        """What the policy is told."""
        if self.body == "half-cheetah":
            return jnp.concatenate([now.qpos[1:], now.qvel, now.com])
        return jnp.concatenate([now.qpos, now.qvel, now.forces, _rotation(now.qpos[3:7]).ravel(), now.com])


def _rotation(quaternion: Float[Array, " 4"]) -> Float[Array, "3 3"]:
    """The matrix of a quaternion (w, x, y, z), which need not be of length 1."""
    w, x, y, z = quaternion / jnp.linalg.norm(quaternion)
    cross = jnp.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    return jnp.eye(3, dtype=cross.dtype) + 2 * (w * cross + cross @ cross)
