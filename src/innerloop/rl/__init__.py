"""Meta-reinforcement learning: environments, policies, sampling of trajectories, and outer steps."""

from innerloop.rl import surrogates as surrogates
from innerloop.rl.distributions import Categorical as Categorical
from innerloop.rl.distributions import Normal as Normal
from innerloop.rl.environments import Bandit as Bandit
from innerloop.rl.environments import Environment as Environment
from innerloop.rl.environments import Locomotion as Locomotion
from innerloop.rl.environments import Navigation as Navigation
from innerloop.rl.environments import Oracle as Oracle
from innerloop.rl.environments import TabularMDP as TabularMDP
from innerloop.rl.environments import Transition as Transition
from innerloop.rl.environments.gymnasium.family import GymnasiumFamily as GymnasiumFamily
from innerloop.rl.evaluate import evaluator as evaluator
from innerloop.rl.outer import MetaIterations as MetaIterations
from innerloop.rl.policies import CategoricalPolicy as CategoricalPolicy
from innerloop.rl.policies import GaussianPolicy as GaussianPolicy
from innerloop.rl.rollout import Trajectories as Trajectories
from innerloop.rl.sample_processor import SampleProcessor as SampleProcessor
from innerloop.rl.sample_processor import Samples as Samples
from innerloop.rl.sampler import MetaSampler as MetaSampler
from innerloop.rl.trpo.natural_gradient import TrustRegion as TrustRegion
from innerloop.rl.updates import MetaObjective as MetaObjective
from innerloop.rl.updates import first_order as first_order
from innerloop.rl.updates import gradient_update as gradient_update
from innerloop.rl.updates import ppo_update as ppo_update
from innerloop.rl.updates import trpo_update as trpo_update
