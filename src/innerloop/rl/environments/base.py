"""What an environment is: pure functions of a key, a task and a state, so that everything can be vectorised."""

from typing import Any, NamedTuple, Protocol, runtime_checkable

from jaxtyping import Array, Bool, Float, PRNGKeyArray


class Transition(NamedTuple):
    """What one step gives: the next state, what is seen of it, the reward, and whether the trajectory is over."""

    state: Any
    observation: Float[Array, " observation"]
    reward: Float[Array, ""]
    done: Bool[Array, ""]


@runtime_checkable
class Environment(Protocol):
    """A family of decision processes that differ by their task. Everything concerns ONE trajectory.

    The task is data (any pytree of arrays) and part of the state from `reset` on; `step` need not be told it.
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
        """Length of an action, or the number of actions where `discrete`."""
        ...

    @property
    def discrete(self) -> bool:
        """Whether an action is one of `action_size` numbers instead of a vector."""
        ...

    def sample_task(self, key: PRNGKeyArray) -> Any:
        """Draw a task."""
        ...

    def task_vector(self, task: Any) -> Float[Array, " description"]:
        """The task as a vector: what an oracle is told."""
        ...

    def reset(self, key: PRNGKeyArray, task: Any) -> tuple[Any, Float[Array, " observation"]]:
        """The first state and what is seen of it."""
        ...

    def step(self, key: PRNGKeyArray, state: Any, action: Array) -> Transition:
        """One step. What it gives after `done` is never looked at."""
        ...
