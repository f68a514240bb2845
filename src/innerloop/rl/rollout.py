"""Trajectories of one task: K of them in parallel, with one scan over H steps."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray, PyTree

from innerloop.engine.pytree import shapes_only
from innerloop.engine.types import Params
from innerloop.rl.distributions import Distribution, PerStep
from innerloop.rl.environments.base import Environment, Transition
from innerloop.rl.interaction import act, reset_all, step_all


class Trajectories(NamedTuple):
    """Trajectories of one task.

    A reward that is not finite marks the step at which the environment broke. If an observation is not finite, it is
    stored as zeros and the reward of its step as NaN.

    Attributes:
        observations: what the policy observed before each step.
        action_dist: the acting policy's distributions over actions.
        actions: the actions taken, `[trajectories, steps, ...]`.
        rewards: the reward of each step.
        mask: 1 up to and including the step that ended the trajectory, then 0.
        ends: 1 at the last step of each trajectory if a row holds several (`innerloop.rl.restarting_rollout`); None:
            one trajectory per row.
    """

    observations: Float[Array, "trajectories steps observation"]
    action_dist: Distribution
    actions: Array
    rewards: PerStep
    mask: PerStep
    ends: PerStep | None = None

    __repr__ = shapes_only

    def first(self) -> "Trajectories":
        """Only the first trajectory of each row."""
        if self.ends is None:
            return self
        before = jnp.cumsum(self.ends, -1) - self.ends
        return self._replace(mask=self.mask * (before == 0), ends=None)

    def returns(self) -> Float[Array, " trajectories"]:
        """Undiscounted return of the first trajectory of each row; not finite if that trajectory broke."""
        own = self.first()
        return jnp.sum(jnp.where(own.mask > 0, own.rewards, 0), -1)

    def whole(self) -> "Trajectories":
        """The same trajectories, each cut before the step at which it broke."""
        kept = jnp.isfinite(self.rewards)
        return self._replace(rewards=jnp.where(kept, self.rewards, 0), mask=self.mask * kept)

    def broken(self) -> Int[Array, " trajectories"]:
        """The step at which each trajectory broke, or -1."""
        at = ~jnp.isfinite(self.rewards)
        return jnp.where(at.any(-1), at.argmax(-1), -1)


def steps_since_start(ends: PerStep) -> Int[Array, "trajectories steps"]:
    """The number of steps since the start of each step's trajectory.

    Args:
        ends: 1 at the last step of each trajectory.
    """
    steps = jnp.arange(ends.shape[1])
    begun = jnp.concatenate([jnp.zeros_like(ends[:, :1]), ends[:, :-1]], 1) * steps[None]
    return steps[None] - jax.lax.cummax(begun.astype(steps.dtype), 1)


def rollout(
    environment: Environment, policy: Params, key: PRNGKeyArray, task: object, trajectories: int
) -> Trajectories:
    """Sample trajectories of one task in parallel.

    As in the published code, no value is bootstrapped where `horizon` cuts a trajectory.

    Args:
        environment: the family of tasks.
        policy: any pytree that maps observations to a distribution over actions.
        key: the source of all randomness.
        task: a task of the family.
        trajectories: number of trajectories to sample.

    Returns:
        Trajectories of `environment.horizon` steps; rewards are zero after the end.

    Raises:
        InnerloopError: if environment and policy do not fit together, or return the wrong things
            (`innerloop.rl.interaction`).
    """
    for_reset, for_steps = jax.random.split(key)
    state, observation = reset_all(environment, jax.random.split(for_reset, trajectories), task)

    def step(carry: tuple, key: PRNGKeyArray) -> tuple[tuple, Trajectories]:
        state, observation, alive = carry
        for_action, for_env = jax.random.split(key)
        after, kept = step_policy(environment, policy, for_action, for_env, state, observation, alive)
        alive = alive * (1 - after.done) * jnp.isfinite(kept.rewards)
        return (after.state, after.observation, alive), kept

    alive = jnp.ones(trajectories, observation.dtype)
    _, kept = jax.lax.scan(
        step, (state, observation, alive), jax.random.split(for_steps, environment.horizon)
    )
    return jax.tree.map(lambda x: jnp.swapaxes(x, 0, 1), kept)


def step_policy(
    environment: Environment,
    policy: Params,
    for_action: PRNGKeyArray,
    for_env: PRNGKeyArray,
    state: PyTree,
    observation: Float[Array, "trajectories observation"],
    acting: Float[Array, " trajectories"],
) -> tuple[Transition, Trajectories]:
    """One step of every trajectory.

    Args:
        environment: the family of tasks.
        policy: any pytree that maps observations to a distribution over actions.
        for_action: the key for the actions.
        for_env: the key for the environment.
        state: the states of the trajectories.
        observation: their observations.
        acting: 1 for every trajectory that has not ended.

    Returns:
        What the environment returns, and what is kept of this step.
    """
    finite = jnp.isfinite(observation).all(-1)
    observation = jnp.where(finite[:, None], observation, 0)
    action_dist, action = act(environment, policy, for_action, observation)
    after = step_all(environment, jax.random.split(for_env, len(observation)), state, action)
    reward = jnp.where(acting > 0, jnp.where(finite, after.reward, jnp.nan), 0)
    return after, Trajectories(observation, action_dist, action, reward, acting)
