"""Finite decision processes and bandits: small enough to enumerate every trajectory.

Their meta-gradients are known exactly, and the estimators are tested against them. The families are those of Duan et
al. 2016, arXiv 1611.02779, section 3.1: arms that pay 1 with a probability uniform on [0, 1], and processes with
normally distributed mean rewards and transitions from a flat Dirichlet distribution.
"""

from dataclasses import dataclass, field
from typing import Annotated, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray

from innerloop.config.bounds import COUNTS, Bounds, check_bounds
from innerloop.rl.environments.base import Transition, VectorTasks


class TabularTask(NamedTuple):
    """Mean rewards and transition probabilities."""

    rewards: Float[Array, "states actions"]
    transitions: Float[Array, "states actions states"]


class TabularState(NamedTuple):
    """The index of the state, and the task."""

    number: Int[Array, ""]
    task: TabularTask


@dataclass(frozen=True)
class TabularMDP:
    """A decision process with finitely many states and actions; it starts in state 0, and observations are one-hot.

    Attributes:
        states: number of states.
        action_size: number of actions.
        horizon: steps of a trajectory.
        noise: standard deviation of a reward around its mean.
        discrete: always true.

    Raises:
        InnerloopError: if a size is below 1, or the noise is negative.
    """

    states: Annotated[int, COUNTS] = 10
    action_size: Annotated[int, COUNTS] = 5
    horizon: Annotated[int, COUNTS] = 10
    noise: Annotated[float, Bounds(0, 1e30)] = 0.0
    discrete: bool = field(default=True, init=False)

    def __post_init__(self) -> None:
        check_bounds(self, "TabularMDP.{}".format)

    @property
    def observation_size(self) -> int:
        """Length of the one-hot state."""
        return self.states

    def sample_task(self, key: PRNGKeyArray) -> TabularTask:
        """Mean rewards from N(1, 1), transitions from a flat Dirichlet distribution."""
        for_rewards, for_transitions = jax.random.split(key)
        shape = (self.states, self.action_size)
        rewards = 1 + jax.random.normal(for_rewards, shape)
        return TabularTask(rewards, jax.random.dirichlet(for_transitions, jnp.ones(self.states), shape))

    def task_vector(self, task: TabularTask) -> Float[Array, " description"]:
        """Mean rewards and transition probabilities in one vector."""
        return jnp.concatenate([task.rewards.ravel(), task.transitions.ravel()])

    def reset(
        self, key: PRNGKeyArray, task: TabularTask
    ) -> tuple[TabularState, Float[Array, " observation"]]:
        """Start in state 0."""
        number = jnp.zeros((), int)
        return TabularState(number, task), self._observe(number, task)

    def step(self, key: PRNGKeyArray, state: TabularState, action: Int[Array, ""]) -> Transition:
        """The reward of the action in this state, then a transition."""
        for_state, for_reward = jax.random.split(key)
        task = state.task
        number = jax.random.categorical(for_state, jnp.log(task.transitions[state.number, action]))
        reward = task.rewards[state.number, action]
        if self.noise:
            reward += self.noise * jax.random.normal(for_reward, dtype=reward.dtype)
        return Transition(
            TabularState(number, task), self._observe(number, task), reward, jnp.zeros((), bool)
        )

    def _observe(self, number: Int[Array, ""], task: TabularTask) -> Float[Array, " observation"]:
        return jax.nn.one_hot(number, self.states, dtype=task.rewards.dtype)


@dataclass(frozen=True)
class Bandit(VectorTasks):
    """Arms that each pay 1 with some probability; the task is the probabilities. One pull by default, no state.

    Raises:
        InnerloopError: if there is not at least one arm and one pull.
    """

    action_size: Annotated[int, COUNTS] = 5
    horizon: Annotated[int, COUNTS] = 1
    observation_size: int = field(default=1, init=False)
    discrete: bool = field(default=True, init=False)

    def __post_init__(self) -> None:
        check_bounds(self, "Bandit.{}".format)

    def sample_task(self, key: PRNGKeyArray) -> Float[Array, " actions"]:
        """Probabilities uniform on [0, 1]."""
        return jax.random.uniform(key, (self.action_size,))

    def reset(
        self, key: PRNGKeyArray, task: Float[Array, " actions"]
    ) -> tuple[Float[Array, " actions"], Float[Array, " 1"]]:
        """The observation is always 1."""
        return task, jnp.ones(1, task.dtype)

    def step(self, key: PRNGKeyArray, state: Float[Array, " actions"], action: Int[Array, ""]) -> Transition:
        """Pull one arm."""
        paid = jax.random.bernoulli(key, state[action]).astype(state.dtype)
        return Transition(state, jnp.ones(1, state.dtype), paid, jnp.zeros((), bool))
