r"""Collection: from an environment's task to an ordinary `Task`, for whose sake alternate acting and adapting.

    for i = 0 .. k-1:   support_i = K trajectories with theta_i
                        theta_{i+1} = theta_i + rule(grad L(theta_i; support_i))
    query = K trajectories with theta_k

Every step has trajectories of its own. The support set holds them one after the other, so that an inner loop whose
minibatch is K goes the same way again, and every algorithm of `innerloop.algorithms` works on the result.

Finn, Abbeel and Levine 2017, algorithm 3, arXiv 1703.03400.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray

from innerloop.engine.algorithm import Algorithm
from innerloop.engine.inner import InnerLoop, inner_step
from innerloop.engine.pytree import combine, partition
from innerloop.engine.types import Params, Task
from innerloop.errors import InnerloopError
from innerloop.rl.environments.base import Environment
from innerloop.rl.restarting_rollout import lanes
from innerloop.rl.rollout import Trajectories, rollout
from innerloop.rl.sample_processor import SampleProcessor

Adapt = Callable[[Params, Any], Params]
"""`adapt(params, support) -> adapted`: an algorithm's, or what stands for it where a step is judged."""


class Collected(NamedTuple):
    """The data of many tasks; mean undiscounted returns with theta_0 .. theta_k; where trajectories broke, or -1.

    The mean is that of the trajectories that did not break.
    """

    tasks: Task
    returns: Float[Array, "tasks policies"]
    broken: Int[Array, "tasks policies trajectories"]


def over_tasks(one: Callable, items: Any, chunk: int | None) -> Any:
    """`one` of every task; `chunk` of them vectorised at a time (None: all)."""
    if chunk is None:
        return jax.vmap(one)(items)
    return jax.lax.map(one, items, batch_size=None if chunk == 1 else chunk)


@dataclass(frozen=True)
class MetaSampler:
    """How the data of one task are made.

    algorithm: its loss is the surrogate that is adapted by; of its inner loop the minibatch is not read.
    trajectories: K, of each step and of the query. restarts: these are lanes (`innerloop.rl.restarting_rollout`):
    where a trajectory
    ends early, others follow it, until as many steps are seen as without early ends.
    """

    environment: Environment
    algorithm: Algorithm
    judge: SampleProcessor
    trajectories: int = 20
    restarts: bool = False

    def __post_init__(self) -> None:
        if self.trajectories < 2:
            raise InnerloopError("MetaSampler", "`trajectories` must be 2 or more", got=self.trajectories)

    @property
    def inner(self) -> InnerLoop:
        """The algorithm's inner loop."""
        return self.algorithm.inner

    @property
    def replayed(self) -> Algorithm:
        """The algorithm for collected data: its inner loop goes through the support set step by step."""
        one = self.inner.steps <= 1  # then the whole support set is the step's
        return self.algorithm.with_inner(minibatch=None if one else self.trajectories)

    def collect(self, policy: Params, keys: Array, worlds: Any, chunk: int | None = None) -> Collected:
        """Act and adapt in many tasks. Without inner steps there is no support set (None)."""
        rolled = self.walk(policy, keys, worlds, chunk)
        samples = [over_tasks(self.judge, t, chunk) for t in rolled]
        support = jax.tree.map(lambda *x: jnp.concatenate(x, 1), *samples[:-1]) if samples[1:] else None
        returns = jnp.stack([jax.vmap(lambda t: jnp.nanmean(t.returns()))(t) for t in rolled], 1)
        broken = jnp.stack([jax.vmap(Trajectories.broken)(t) for t in rolled], 1)
        return Collected(Task(support, samples[-1]), returns, broken)

    def walk(self, policy: Params, keys: Array, worlds: Any, chunk: int | None = None) -> list[Trajectories]:
        """The trajectories with theta_0 .. theta_k, each with a leading axis of tasks.

        All tasks act side by side; `chunk` of them are adapted at a time (None: all).
        """
        fast, frozen = partition(policy, self.inner.select)
        count = keys.shape[0]
        state = self.inner.rule.init(fast)
        fast, state = jax.tree.map(lambda x: jnp.broadcast_to(x, (count, *jnp.shape(x))), (fast, state))
        keys = jax.vmap(lambda key: jax.random.split(key, self.inner.steps + 1))(keys)
        act = jax.vmap(lambda fast, key, world: self.act(combine(fast, frozen), key, world))
        rolled = []
        for i in range(self.inner.steps):
            rolled.append(act(fast, keys[:, i], worlds))
            fast, state = over_tasks(self.step(frozen), (fast, state, rolled[-1]), chunk)
        return [*rolled, act(fast, keys[:, -1], worlds)]

    def step(self, frozen: Params) -> Callable[[tuple], tuple]:
        """One inner step of one task: (what moves, the rule's state, trajectories) -> the first two."""

        def moved(item: tuple) -> tuple:
            fast, state, trajectories = item
            rest = (frozen, self.judge(trajectories))
            return inner_step(self.loss_of, self.once, rest, None)((fast, state), jnp.zeros((), int))[0]

        return moved

    @property
    def once(self) -> InnerLoop:
        """One step on all that it is given."""
        return replace(self.inner, minibatch=None)

    def loss_of(self, fast: Any, rest: Any) -> Array:
        """The surrogate as a function of what moves."""
        frozen, samples = rest
        return self.algorithm.loss_fn(combine(fast, frozen), samples)

    def act(self, policy: Params, key: PRNGKeyArray, task: Any) -> Trajectories:
        """K trajectories, or lanes of them."""
        draw = lanes if self.restarts else rollout
        return draw(self.environment, policy, key, task, self.trajectories)


def sampled(collector: MetaSampler, policy: Params, keys: Array, chunk: int | None = None) -> Collected:
    """Draw a task for each key and collect in it: keys for the task and for acting are apart."""
    pairs = jax.vmap(jax.random.split)(keys)
    worlds = jax.vmap(collector.environment.sample_task)(pairs[:, 0])
    return collector.collect(policy, pairs[:, 1], worlds, chunk)
