"""Families of environments: pure functions whose task is data."""

from innerloop.rl.environments.environment import Environment as Environment
from innerloop.rl.environments.environment import Transition as Transition
from innerloop.rl.environments.navigation import Navigation as Navigation
from innerloop.rl.environments.oracle import Oracle as Oracle
from innerloop.rl.environments.tabular import Bandit as Bandit
from innerloop.rl.environments.tabular import TabularMDP as TabularMDP
