"""Families of environments: pure functions whose task is data."""

from typing import Literal

from innerloop.rl.environments.environment import Environment as Environment
from innerloop.rl.environments.environment import Transition as Transition
from innerloop.rl.environments.locomotion import Locomotion as Locomotion
from innerloop.rl.environments.navigation import Navigation as Navigation
from innerloop.rl.environments.oracle import Oracle as Oracle
from innerloop.rl.environments.tabular import Bandit as Bandit
from innerloop.rl.environments.tabular import TabularMDP as TabularMDP


def named(family: str, horizon: int, reward: Literal["distance", "squared"] = "distance") -> Environment:
    """The environments of a config's data set: `navigation`, or a body and what it is paid for, `ant_velocity`.

    `reward` is navigation's. Raises InnerloopError where a body's packages are not installed.
    """
    if family == "navigation":
        return Navigation(reward, horizon)
    body, _, goal = family.replace("half_cheetah", "half-cheetah").partition("_")
    return Locomotion(body, goal, horizon)  # pyright: ignore[reportArgumentType]
