"""Families of environments: pure functions whose task is data."""

from typing import Literal

from innerloop.config.specs import DatasetSpec
from innerloop.rl.environments.base import Environment as Environment
from innerloop.rl.environments.base import Transition as Transition
from innerloop.rl.environments.locomotion import Locomotion as Locomotion
from innerloop.rl.environments.navigation import Navigation as Navigation
from innerloop.rl.environments.oracle import Oracle as Oracle
from innerloop.rl.environments.tabular import Bandit as Bandit
from innerloop.rl.environments.tabular import TabularMDP as TabularMDP


def named(
    spec: DatasetSpec, horizon: int, reward: Literal["distance", "squared"] = "distance"
) -> Environment:
    """The environments of a data set: navigation, or a body and what it is rewarded for.

    `reward` is navigation's. Raises InnerloopError where a body's packages are not installed.
    """
    if not spec.body:
        return Navigation(reward, horizon)
    return Locomotion(spec.body, spec.goal, horizon)  # pyright: ignore[reportArgumentType]
