r"""Sampling for meta-learning: turns an environment's task into an ordinary `Task`, by acting and adapting in turn.

    for i = 0 .. k-1:   support_i = K trajectories with theta_i
                        theta_{i+1} = theta_i + rule(grad L(theta_i; support_i))
    query = K trajectories with theta_k

Every inner step has its own trajectories. The support set holds them one after the other, so an inner loop with
minibatches of K repeats the same steps. This holds for algorithms that adapt a policy by the plain inner loop: MAML,
FOMAML, ANIL, BOIL, Reptile and joint training. Others are refused: those with learned step sizes or a start that
depends on the support set, and iMAML, whose meta-gradient is that at the minimum of one support loss. Joint training
adapts only at test, so its data (`MetaSampler.collect`) are K trajectories with theta_0, and no support set.

Finn, Abbeel and Levine 2017, algorithm 3, arXiv 1703.03400.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Annotated, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray, PyTree

from innerloop.config.bounds import Bounds, check_bounds
from innerloop.engine.algorithm import Algorithm, check_is_algorithm
from innerloop.engine.inner.inner_loop import InnerLoop
from innerloop.engine.inner.inner_step import Carry, StepInputs, inner_step
from innerloop.engine.losses.loss import Extras
from innerloop.engine.pytree import combine, partition
from innerloop.engine.types import Params, Task
from innerloop.errors import InnerloopError
from innerloop.rl.environments.base import Environment
from innerloop.rl.fit import check_members
from innerloop.rl.interaction import draw_tasks
from innerloop.rl.restarting_rollout import restarting_rollout
from innerloop.rl.rollout import Trajectories, rollout
from innerloop.rl.sample_processor import SampleProcessor


class MetaBatch(NamedTuple):
    """The samples of many tasks.

    Attributes:
        tasks: support and query samples, with a leading axis of tasks.
        returns: mean undiscounted return with theta_0 .. theta_k over the trajectories that did not break; NaN if all
            of a task's did.
        broken: the step at which each trajectory broke, or -1.
    """

    tasks: Task
    returns: Float[Array, "tasks policies"]
    broken: Int[Array, "tasks policies trajectories"]


def map_tasks(one: Callable, items: PyTree, chunk: int | None) -> PyTree:
    """Map `one` over items along the leading axis, vectorising `chunk` of them at a time (None: all)."""
    if chunk is None:
        return jax.vmap(one)(items)
    return jax.lax.map(one, items, batch_size=None if chunk == 1 else chunk)


@dataclass(frozen=True)
class MetaSampler:
    """Samples the support and query data of tasks.

    Attributes:
        environment: the family of tasks.
        algorithm: its loss is the inner surrogate; the minibatch size of its inner loop is ignored. It must adapt by
            this inner loop, from its meta-parameters as they are.
        processor: turns trajectories into samples.
        trajectories: K, the number of trajectories for each inner step and for the query set.
        restarts: whether another trajectory follows one that ends early (`innerloop.rl.restarting_rollout`). This needs
            an environment whose state is a value, which Gymnasium's is not.

    Raises:
        InnerloopError: if there are fewer than two trajectories, the environment lacks a member, the processor is not
            callable, the algorithm has an inner loop or a start of its own, or an environment that hides its state
            should restart.
    """

    environment: Environment
    algorithm: Algorithm
    processor: SampleProcessor = SampleProcessor()
    trajectories: Annotated[int, Bounds(2, 1_000_000)] = 20
    restarts: bool = False

    def __post_init__(self) -> None:
        check_bounds(self, "MetaSampler.{}".format)
        self._check_algorithm()
        check_members(self.environment)
        if isinstance(self.processor, type) or not callable(self.processor):
            got = getattr(self.processor, "__name__", type(self.processor).__name__)
            raise InnerloopError("MetaSampler", "needs a processor", got=got, hint="pass SampleProcessor()")
        if self.restarts and getattr(self.environment, "hides_state", False):
            wrong = "its copies are reset and stepped together, so one alone cannot restart"
            raise InnerloopError(type(self.environment).__name__, wrong, hint="use `restarts=False`")

    def _check_algorithm(self) -> None:
        """Raise InnerloopError for an algorithm whose adaptation the sampler does not repeat."""
        check_is_algorithm(self.algorithm, "MetaSampler")
        kind = type(self.algorithm)
        plain = (kind.inner_for, kind.start) == (Algorithm.inner_for, Algorithm.start)
        if not plain or self.inner.stream:
            wrong = (
                "a policy acts and adapts by the plain inner loop, which is not all that this algorithm does"
            )
            hint = "use maml, fomaml, anil, boil, reptile or joint"
            raise InnerloopError("MetaSampler", wrong, got=kind.__name__, hint=hint)

    @property
    def inner(self) -> InnerLoop:
        """The algorithm's inner loop."""
        return self.algorithm.inner

    @property
    def training(self) -> "MetaSampler":
        """The sampler of training data: the same, but joint training takes no inner steps."""
        adapts = self.algorithm.adapts_in_training
        return self if adapts else replace(self, algorithm=self.algorithm.with_inner(steps=0))

    @property
    def replayed(self) -> Algorithm:
        """The algorithm for collected data: each inner step reads its own trajectories of the support set."""
        algorithm = self.training.algorithm
        single = algorithm.inner.steps <= 1  # the only step reads the whole support set
        return algorithm.with_inner(minibatch=None if single else self.trajectories)

    def collect(self, policy: Params, keys: Array, env_tasks: PyTree, chunk: int | None = None) -> MetaBatch:
        """Act and adapt in many tasks, as in training.

        Args:
            policy: the initial policy, theta_0.
            keys: a key per task.
            env_tasks: tasks of the environment, with a leading axis.
            chunk: number of tasks adapted at a time (None: all).

        Returns:
            The samples; without inner steps, the support set is None.
        """
        rolled = self.training.rollouts(policy, keys, env_tasks, chunk)
        samples = [map_tasks(self.processor, t, chunk) for t in rolled]
        support = jax.tree.map(lambda *x: jnp.concatenate(x, 1), *samples[:-1]) if samples[1:] else None
        return MetaBatch(Task(support, samples[-1]), *returns_and_broken(rolled))

    def rollouts(
        self, policy: Params, keys: Array, env_tasks: PyTree, chunk: int | None = None
    ) -> list[Trajectories]:
        """The trajectories with theta_0 .. theta_k, each with a leading axis of tasks.

        All tasks act in parallel, and every algorithm adapts; arguments as in `collect`.
        """
        fast, frozen = partition(policy, self.inner.select)
        count = keys.shape[0]
        state = self.inner.rule.init(fast)
        fast, state = jax.tree.map(lambda x: jnp.broadcast_to(x, (count, *jnp.shape(x))), (fast, state))
        keys = jax.vmap(lambda key: jax.random.split(key, self.inner.steps + 1))(keys)
        act = jax.vmap(lambda fast, key, task: self._act(combine(fast, frozen), key, task))
        rolled = []
        for i in range(self.inner.steps):
            rolled.append(act(fast, keys[:, i], env_tasks))
            fast, state = map_tasks(self._inner_step(frozen), (fast, state, rolled[-1]), chunk)
        return [*rolled, act(fast, keys[:, -1], env_tasks)]

    def _inner_step(self, frozen: Params) -> Callable[[tuple], tuple]:
        """One inner step of one task: (adapted parameters, state of the rule, trajectories) -> the new first two."""

        def loss(fast: PyTree, now: StepInputs, samples: PyTree) -> tuple[Array, Extras]:
            return self.algorithm.loss_fn(combine(fast, frozen), samples), Extras()

        def moved(item: tuple) -> tuple:
            fast, state, trajectories = item
            step = inner_step(
                loss, self.inner.rule, self.processor(trajectories), mixed=self.inner.derivative == "mixed"
            )
            return step(Carry(fast, state), StepInputs())[0][:2]

        return moved

    def _act(self, policy: Params, key: PRNGKeyArray, task: PyTree) -> Trajectories:
        draw = restarting_rollout if self.restarts else rollout
        return draw(self.environment, policy, key, task, self.trajectories)


def check_is_sampler(sampler: object, who: str) -> None:
    """Raise InnerloopError, on behalf of `who`, unless this is a sampler."""
    if not isinstance(sampler, MetaSampler):
        raise InnerloopError(who, "needs a MetaSampler", got=type(sampler).__name__)


def returns_and_broken(rolled: list[Trajectories]) -> tuple[Array, Array]:
    """The mean returns of many tasks with each policy, and where trajectories broke (see `MetaBatch`)."""
    returns = jnp.stack([jax.vmap(_mean_return)(t) for t in rolled], 1)
    return returns, jnp.stack([jax.vmap(Trajectories.broken)(t) for t in rolled], 1)


def _mean_return(trajectories: Trajectories) -> Float[Array, ""]:
    """The mean return of one task's trajectories that did not break; NaN if all did."""
    returns = trajectories.returns()
    return jnp.mean(returns, where=jnp.isfinite(returns))


def sample_meta_batch(
    sampler: MetaSampler, policy: Params, keys: Array, chunk: int | None = None
) -> MetaBatch:
    """Draw a task for each key, and collect its samples.

    Args:
        sampler: collects the samples.
        policy: the initial policy.
        keys: a key per task, split in two for drawing the task and for the actions.
        chunk: number of tasks adapted at a time (None: all).
    """
    return sampler.collect(policy, *split_draws(sampler.environment, keys), chunk)


def split_draws(environment: Environment, keys: Array) -> tuple[Array, PyTree]:
    """A key for the actions and a task, for each key."""
    pairs = jax.vmap(jax.random.split)(keys)
    return pairs[:, 1], draw_tasks(environment, pairs[:, 0])
