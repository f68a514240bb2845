"""2D navigation: walk from the origin to a goal that only the reward reveals.

Finn, Abbeel and Levine 2017, section 5.3, arXiv 1703.03400; published code `point_env_randgoal.py`.
The goal is uniform on [-0.5, 0.5]^2, the observation is the position, and a trajectory ends within 0.01 of the goal in
both coordinates or after 100 steps. An action in [-1, 1]^2 is a velocity of up to 0.1 per step; actions are clipped, as
by the normalising wrapper of the published code.
"""

from dataclasses import dataclass, field
from typing import Annotated, Literal, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from innerloop.config.bounds import COUNTS, check_bounds
from innerloop.engine.inner.safe_roots import safe_sqrt
from innerloop.errors import check_choice
from innerloop.rl.environments.base import Transition, VectorTasks

MAX_STEP = 0.1
GOAL_RADIUS = 0.01


class NavigationState(NamedTuple):
    """Current position and goal."""

    position: Float[Array, " 2"]
    goal: Float[Array, " 2"]


@dataclass(frozen=True)
class Navigation(VectorTasks):
    """A point in the plane; the task is its goal.

    Attributes:
        reward: "distance" for minus the distance to the goal (as in the published code, whose numbers are reported),
            or "squared" for minus its square (as in the paper's text).
        horizon: steps after which a trajectory is cut.
        observation_size: the two coordinates.
        action_size: the two components of the velocity.
        discrete: always false.

    Raises:
        InnerloopError: if the reward is unknown, or the horizon is below 1.
    """

    reward: Literal["distance", "squared"] = "distance"
    horizon: Annotated[int, COUNTS] = 100
    observation_size: int = field(default=2, init=False)
    action_size: int = field(default=2, init=False)
    discrete: bool = field(default=False, init=False)

    def __post_init__(self) -> None:
        check_choice("Navigation", "reward", self.reward, ("distance", "squared"))
        check_bounds(self, "Navigation.{}".format)

    def sample_task(self, key: PRNGKeyArray) -> Float[Array, " 2"]:
        """A goal, uniform on [-0.5, 0.5]^2."""
        return jax.random.uniform(key, (2,), minval=-0.5, maxval=0.5)

    def reset(
        self, key: PRNGKeyArray, task: Float[Array, " 2"]
    ) -> tuple[NavigationState, Float[Array, " 2"]]:
        """Start at the origin."""
        origin = jnp.zeros_like(task)
        return NavigationState(origin, task), origin

    def step(self, key: PRNGKeyArray, state: NavigationState, action: Float[Array, " 2"]) -> Transition:
        """Move; the reward depends on the new position."""
        position = state.position + MAX_STEP * jnp.clip(action, -1.0, 1.0)
        away = position - state.goal
        squared = jnp.sum(jnp.square(away))
        reward = -squared if self.reward == "squared" else -safe_sqrt(squared)
        done = jnp.all(jnp.abs(away) < GOAL_RADIUS)
        return Transition(NavigationState(position, state.goal), position, reward, done)
