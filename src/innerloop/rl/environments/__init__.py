"""Families of environments, as pure functions that take the task as data."""

from innerloop.rl.environments.base import Environment as Environment
from innerloop.rl.environments.base import Transition as Transition
from innerloop.rl.environments.locomotion import Locomotion as Locomotion
from innerloop.rl.environments.navigation import Navigation as Navigation
from innerloop.rl.environments.oracle import Oracle as Oracle
from innerloop.rl.environments.tabular import Bandit as Bandit
from innerloop.rl.environments.tabular import TabularMDP as TabularMDP
