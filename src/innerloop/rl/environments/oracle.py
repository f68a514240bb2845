"""An environment that tells its task: the observation is followed by the task's vector."""

from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from innerloop.rl.environments.base import Environment, Transition


class OracleState(NamedTuple):
    """The state within, and what is told of the task."""

    inner: Any
    told: Float[Array, " description"]


@dataclass(frozen=True)
class Oracle:
    """The upper bound of the papers: `environment` with the task as part of every observation."""

    environment: Environment

    @property
    def horizon(self) -> int:
        """As within."""
        return self.environment.horizon

    @property
    def action_size(self) -> int:
        """As within."""
        return self.environment.action_size

    @property
    def discrete(self) -> bool:
        """As within."""
        return self.environment.discrete

    @property
    def observation_size(self) -> int:
        """The observation and the task's vector."""
        told = jax.eval_shape(lambda key: self.task_vector(self.sample_task(key)), jax.random.key(0))
        return self.environment.observation_size + told.shape[0]

    def sample_task(self, key: PRNGKeyArray) -> Any:
        """As within."""
        return self.environment.sample_task(key)

    def task_vector(self, task: Any) -> Float[Array, " description"]:
        """As within."""
        return self.environment.task_vector(task)

    def reset(self, key: PRNGKeyArray, task: Any) -> tuple[OracleState, Float[Array, " observation"]]:
        """As within, with the task told."""
        state, seen = self.environment.reset(key, task)
        told = self.task_vector(task)
        return OracleState(state, told), jnp.concatenate([seen, told])

    def step(self, key: PRNGKeyArray, state: OracleState, action: Array) -> Transition:
        """As within, with the task told."""
        t = self.environment.step(key, state.inner, action)
        seen = jnp.concatenate([t.observation, state.told])
        return Transition(OracleState(t.state, state.told), seen, t.reward, t.done)
