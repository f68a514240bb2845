"""An environment whose observations include the task."""

from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from innerloop.errors import InnerloopError
from innerloop.rl.environments.base import Environment, Transition


class OracleState(NamedTuple):
    """The state of the wrapped environment, and the task as a vector."""

    inner: PyTree
    task_vector: Float[Array, " description"]


@dataclass(frozen=True)
class Oracle:
    """An environment with the task appended to every observation: the upper bound in the papers.

    Attributes:
        environment: the wrapped environment.
    """

    environment: Environment

    @property
    def horizon(self) -> int:
        """Steps after which a trajectory is cut."""
        return self.environment.horizon

    @property
    def hides_state(self) -> bool:
        """Whether the wrapped environment hides its state, as Gymnasium's do."""
        return getattr(self.environment, "hides_state", False)

    @property
    def action_size(self) -> int:
        """Length of an action, or the number of actions."""
        return self.environment.action_size

    @property
    def discrete(self) -> bool:
        """Whether actions are discrete."""
        return self.environment.discrete

    @property
    def observation_size(self) -> int:
        """Length of the observation with the task appended."""
        one = self.environment
        vector = jax.eval_shape(lambda key: one.task_vector(one.sample_task(key)), jax.random.key(0))
        if len(vector.shape) != 1:
            name = type(one).__name__
            raise InnerloopError(name, "`task_vector` must have one axis", got=f"shape {vector.shape}")
        return one.observation_size + vector.shape[0]

    def probe(self) -> None:
        """Probe the wrapped environment, if it can be probed."""
        if hasattr(self.environment, "probe"):
            self.environment.probe()  # pyright: ignore[reportAttributeAccessIssue]

    def sample_task(self, key: PRNGKeyArray) -> PyTree:
        """Draw a task."""
        return self.environment.sample_task(key)

    def task_vector(self, task: PyTree) -> Float[Array, " description"]:
        """The task as a vector."""
        return self.environment.task_vector(task)

    def reset(self, key: PRNGKeyArray, task: PyTree) -> tuple[OracleState, Float[Array, " observation"]]:
        """The first state and its observation, followed by the task."""
        state, observation = self.environment.reset(key, task)
        vector = self.task_vector(task)
        return OracleState(state, vector), jnp.concatenate([observation, vector])

    def step(self, key: PRNGKeyArray, state: OracleState, action: Array) -> Transition:
        """One step; the observation is followed by the task."""
        t = self.environment.step(key, state.inner, action)
        observation = jnp.concatenate([t.observation, state.task_vector])
        return Transition(OracleState(t.state, state.task_vector), observation, t.reward, t.done)
