"""Meta-reinforcement learning: environments, policies, sampling of trajectories, and outer steps."""

from innerloop.rl import surrogates
from innerloop.rl.distributions import Categorical, Normal
from innerloop.rl.environments import (
    Bandit,
    Environment,
    Locomotion,
    Navigation,
    Oracle,
    TabularMDP,
    Transition,
)
from innerloop.rl.environments.gymnasium.family import GymnasiumFamily
from innerloop.rl.evaluate import evaluate_policy
from innerloop.rl.outer import MetaIterations
from innerloop.rl.policies import CategoricalPolicy, GaussianPolicy
from innerloop.rl.rollout import Trajectories
from innerloop.rl.sample_processor import SampleProcessor, Samples
from innerloop.rl.sampler import MetaSampler
from innerloop.rl.trpo.natural_gradient import TrustRegion
from innerloop.rl.updates import gradient_update, ppo_update, trpo_update

__all__ = [
    "Bandit",
    "Categorical",
    "CategoricalPolicy",
    "Environment",
    "GaussianPolicy",
    "GymnasiumFamily",
    "Locomotion",
    "MetaIterations",
    "MetaSampler",
    "Navigation",
    "Normal",
    "Oracle",
    "SampleProcessor",
    "Samples",
    "TabularMDP",
    "Trajectories",
    "Transition",
    "TrustRegion",
    "evaluate_policy",
    "gradient_update",
    "ppo_update",
    "surrogates",
    "trpo_update",
]
