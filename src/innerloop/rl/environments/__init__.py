"""Families of environments, as pure functions that take the task as data."""

from typing import Literal

from innerloop.config.specs import DatasetSpec
from innerloop.rl.environments.base import Environment as Environment
from innerloop.rl.environments.base import Transition as Transition
from innerloop.rl.environments.locomotion import Locomotion as Locomotion
from innerloop.rl.environments.navigation import Navigation as Navigation
from innerloop.rl.environments.oracle import Oracle as Oracle
from innerloop.rl.environments.tabular import Bandit as Bandit
from innerloop.rl.environments.tabular import TabularMDP as TabularMDP


def make_environment(
    spec: DatasetSpec, horizon: int, reward: Literal["distance", "squared"] = "distance"
) -> Environment:
    """The family of environments that a config names.

    Args:
        spec: the row of the table of data sets.
        horizon: steps after which a trajectory is cut.
        reward: the reward for navigation.

    Raises:
        InnerloopError: if MuJoCo or Gymnasium is needed but not installed.
    """
    if not spec.body:
        return Navigation(reward, horizon)
    return Locomotion(spec.body, spec.goal, horizon)  # pyright: ignore[reportArgumentType]
