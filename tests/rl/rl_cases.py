"""Small processes whose meta-gradients are known, by writing down every trajectory."""

import itertools
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array

from innerloop.rl.environments.tabular import TabularTask
from innerloop.rl.policies import CategoricalPolicy
from innerloop.rl.rollout import Trajectories
from innerloop.rl.sample_processor import SampleProcessor

PLAIN = SampleProcessor(discount=1.0, gae_lambda=1.0, baseline="none", normalize=False)


def table_policy(states: int, actions: int, seed: int = 0) -> CategoricalPolicy:
    """Softmax of a table (and a bias), not at its symmetric point."""
    policy = CategoricalPolicy(states, actions, hidden=(), key=jax.random.key(seed))
    keys = iter(jax.random.split(jax.random.key(seed + 1), 2))
    return jax.tree.map(lambda x: 0.7 * jax.random.normal(next(keys), x.shape, x.dtype), policy)


def mean_return(policy: Any, task: TabularTask, horizon: int) -> Array:
    """J, exactly, by the forward recursion of state probabilities; divided by the horizon, as the samples' mean is."""
    states = task.rewards.shape[0]
    acts = jax.nn.softmax(policy(jnp.eye(states)).logits)
    here, total = jnp.eye(states)[0], jnp.zeros(())
    for _ in range(horizon):
        joint = here[:, None] * acts
        total = total + jnp.sum(joint * task.rewards)
        here = jnp.einsum("sa,sat->t", joint, task.transitions)
    return total / horizon


def every_trajectory(policy: Any, task: TabularTask, horizon: int) -> tuple[Trajectories, Array]:
    """All trajectories from state 0, and their probabilities under `policy`."""
    states, actions = task.rewards.shape
    walks = list(itertools.product(range(states), repeat=horizon - 1))
    plays = list(itertools.product(range(actions), repeat=horizon))
    rows = [((0, *walk), play) for walk in walks for play in plays]
    s, a = (jnp.array(x) for x in zip(*rows, strict=True))
    seen = jax.nn.one_hot(s, states)
    answers = policy(seen)
    moved = jnp.prod(task.transitions[s[:, :-1], a[:, :-1], s[:, 1:]], -1)
    chance = moved * jnp.exp(answers.log_prob(a).sum(-1))
    rewards = task.rewards[s, a]
    return Trajectories(seen, answers, a, rewards, jnp.ones_like(rewards)), chance
