"""The interface of environments: pure functions of a key, a task and a state, so that all of them can be vectorised."""

from typing import NamedTuple, Protocol, runtime_checkable

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, PRNGKeyArray, PyTree

from innerloop.engine.distribution import check_random


class Transition(NamedTuple):
    """The result of a step: the next state, its observation, the reward, and whether the trajectory has ended."""

    state: PyTree
    observation: Float[Array, " observation"]
    reward: Float[Array, ""]
    done: Bool[Array, ""]


@runtime_checkable
class Environment(Protocol):
    """A family of decision processes that differ in their task; every method handles ONE trajectory.

    The task is data: any pytree of arrays. `reset` puts whatever `step` needs from it into the state.
    """

    @property
    def horizon(self) -> int:
        """Steps after which a trajectory is cut."""
        ...

    @property
    def observation_size(self) -> int:
        """Length of an observation."""
        ...

    @property
    def action_size(self) -> int:
        """Length of an action, or the number of actions if `discrete`."""
        ...

    @property
    def discrete(self) -> bool:
        """Whether an action is an index below `action_size` instead of a vector."""
        ...

    def sample_task(self, key: PRNGKeyArray) -> PyTree:
        """Draw a task."""
        ...

    def task_vector(self, task: PyTree) -> Float[Array, " description"]:
        """The task as a vector, which `Oracle` appends to the observations."""
        ...

    def reset(self, key: PRNGKeyArray, task: PyTree) -> tuple[PyTree, Float[Array, " observation"]]:
        """The first state and its observation."""
        ...

    def step(self, key: PRNGKeyArray, state: PyTree, action: Array) -> Transition:
        """One step. Results after `done` are ignored."""
        ...


class VectorTasks:
    """A base class for environments whose task is one array."""

    def task_vector(self, task: Array) -> Float[Array, " description"]:
        """The task, flattened."""
        return jnp.ravel(task)


def check_tasks(environment: Environment, key: PRNGKeyArray, who: str) -> None:
    """Raise InnerloopError, on behalf of `who`, unless the environment draws its tasks from their keys."""
    fixed = "choose among fixed tasks with jax.random.choice"
    check_random(environment.sample_task, key, who, f"{type(environment).__name__}.sample_task", fixed=fixed)
