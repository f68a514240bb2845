r"""Lanes: K trajectories at a time; where one ends early another follows, so that no fewer steps are seen.

    a lane begins trajectories as long as it has acted fewer than H steps, and finishes the last one that it began

Published evaluations draw a number of steps for each update, not of trajectories (`batch_size=4000` of MAML's 2D
navigation, H = 100): a policy that reaches its goal in ten steps is judged by some hundreds of trajectories. With the
steps of forty trajectories of ten steps, the next policy gradient is mostly noise.

Their sampler drops what is unfinished when the number is reached, which favours short trajectories. Here every
trajectory that was begun is finished, so their number in a lane is a stopping time, and by Wald's identity the sum of
any g(trajectory) has the expectation E[number] E[g]: no sort of trajectory is favoured, and a policy gradient, which
is such a sum, points where that of whole trajectories does. A lane acts H to 2H - 1 steps. The return that is
reported is that of each lane's first trajectory, an ordinary one.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, PRNGKeyArray

from innerloop.engine.types import Params
from innerloop.rl.environments.base import Environment
from innerloop.rl.rollout import Trajectories


def lanes(
    environment: Environment, policy: Params, key: PRNGKeyArray, task: object, count: int
) -> Trajectories:
    """`count` lanes of whole trajectories in one task; `ends` says where one is over."""
    for_reset, for_steps = jax.random.split(key)
    horizon, length = environment.horizon, 2 * environment.horizon - 1
    begin = lambda key: jax.vmap(environment.reset, (0, None))(jax.random.split(key, count), task)

    def step(carry: tuple, now: tuple[PRNGKeyArray, Array]) -> tuple[tuple, Trajectories]:
        (state, seen, age, acting), (key, time) = carry, now
        for_action, for_world, for_begin = jax.random.split(key, 3)
        answer = policy(seen)
        action = answer.sample(for_action)
        after = jax.vmap(environment.step)(jax.random.split(for_world, count), state, action)
        over = after.done | (age + 1 == horizon) | ~jnp.isfinite(after.reward)
        kept = Trajectories(seen, answer, action, after.reward * acting, acting, acting * over)
        state, seen = _where(over, begin(for_begin), (after.state, after.observation))
        acting = jnp.where(over & (time + 1 >= horizon), 0.0, acting)
        return (state, seen, jnp.where(over, 0, age + 1), acting), kept

    state, seen = begin(for_reset)
    start = (state, seen, jnp.zeros(count, int), jnp.ones(count, seen.dtype))
    _, kept = jax.lax.scan(step, start, (jax.random.split(for_steps, length), jnp.arange(length)))
    return jax.tree.map(lambda x: jnp.swapaxes(x, 0, 1), kept)


def _where(chosen: Array, there: Any, other: Any) -> Any:
    """Of each lane's tree the one or the other."""
    pick = lambda a, b: jnp.where(chosen.reshape(-1, *[1] * (a.ndim - 1)), a, b)
    return jax.tree.map(pick, there, other)
