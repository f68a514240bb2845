r"""Rollouts that restart: when a trajectory ends early another follows, so that early ends cost no samples.

    K lanes act in parallel. A lane starts trajectories until it has taken H steps, and finishes the last one.

Published evaluations sample a fixed number of steps for each update, not of trajectories (`batch_size=4000` in MAML's
2D navigation, H = 100): a policy that reaches its goal in ten steps is evaluated on several hundred trajectories. With
only forty trajectories of ten steps, the next policy gradient would be mostly noise.

Their sampler drops unfinished trajectories when that number is reached, which favours short ones. Here every trajectory
that is started is finished, so the number of trajectories in a lane is a stopping time, and by Wald's identity the sum
of any g(trajectory) has the expectation E[number] E[g]. No kind of trajectory is favoured, and the policy gradient,
which is such a sum, has the same direction as with one whole trajectory per lane. A lane takes H to 2H - 1 steps. The
reported return is that of each lane's first trajectory.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, PRNGKeyArray, PyTree

from innerloop.engine.types import Params
from innerloop.rl.environments.base import Environment
from innerloop.rl.interaction import reset_all
from innerloop.rl.rollout import Trajectories, step_policy


def restarting_rollout(
    environment: Environment, policy: Params, key: PRNGKeyArray, task: object, count: int
) -> Trajectories:
    """Sample lanes of whole trajectories in one task.

    Args:
        environment: the family of tasks.
        policy: any pytree that maps observations to a distribution over actions.
        key: the source of all randomness.
        task: a task of the family.
        count: the number of lanes, K.

    Returns:
        Trajectories of 2H - 1 steps; `ends` is 1 at the last step of each trajectory.

    Raises:
        InnerloopError: as for `rollout`.
    """
    for_reset, for_steps = jax.random.split(key)
    horizon, length = environment.horizon, 2 * environment.horizon - 1
    begin = lambda key: reset_all(environment, jax.random.split(key, count), task)

    def step(carry: tuple, now: tuple[PRNGKeyArray, Array]) -> tuple[tuple, Trajectories]:
        (state, observation, age, acting), (key, time) = carry, now
        for_action, for_env, for_begin = jax.random.split(key, 3)
        after, kept = step_policy(environment, policy, for_action, for_env, state, observation, acting)
        over = after.done | (age + 1 == horizon) | ~jnp.isfinite(kept.rewards)
        kept = kept._replace(ends=acting * over)
        state, observation = _where(over, begin(for_begin), (after.state, after.observation))
        acting = jnp.where(over & (time + 1 >= horizon), 0.0, acting)
        return (state, observation, jnp.where(over, 0, age + 1), acting), kept

    state, observation = begin(for_reset)
    start = (state, observation, jnp.zeros(count, int), jnp.ones(count, observation.dtype))
    _, kept = jax.lax.scan(step, start, (jax.random.split(for_steps, length), jnp.arange(length)))
    return jax.tree.map(lambda x: jnp.swapaxes(x, 0, 1), kept)


def _where(chosen: Array, there: PyTree, other: PyTree) -> PyTree:
    """`jnp.where` on two trees, along the leading axis."""
    pick = lambda a, b: jnp.where(chosen.reshape(-1, *[1] * (a.ndim - 1)), a, b)
    return jax.tree.map(pick, there, other)
