"""Evaluation in reinforcement learning: undiscounted returns after 0..n updates on held-out tasks."""

from collections.abc import Callable, Iterator

import jax
from jaxtyping import PRNGKeyArray, PyTree

from innerloop.engine.evaluate import Curve, check_request, in_turn, whole_batches
from innerloop.engine.types import Params
from innerloop.parallel.mesh import EVERYWHERE, SPLIT, task_mesh
from innerloop.parallel.param_sharding import on_mesh
from innerloop.rl.environments.base import check_tasks
from innerloop.rl.interaction import draw_tasks
from innerloop.rl.sampler import MetaSampler, sample_meta_batch


def evaluator(
    sampler: MetaSampler, *, tasks: int, part: int = 20
) -> Callable[[Params, PRNGKeyArray], Iterator[Curve]]:
    """A function that measures returns on held-out tasks, compiled on its first call.

    The return after i updates is that of the trajectories sampled with theta_i. They are sampled after theta_i was
    computed, so the estimate is unbiased; the next update then learns from them.

    Args:
        sampler: collects the trajectories, with the inner loop used at test time.
        tasks: the number of held-out tasks; each has its own key.
        part: number of tasks measured at a time.

    Returns:
        `run(params, key)`, which yields a Curve of `return` for every `part` tasks.

    Raises:
        InnerloopError: if there are fewer than two tasks; from `run`, if tasks do not depend on their keys.
    """
    tasks, _, _ = check_request(tasks, 1, (0,), sampler.inner.steps)
    part = whole_batches(part, tasks)
    mesh = task_mesh(part)
    returns = lambda params, keys: sample_meta_batch(sampler, params, keys).returns
    scored = on_mesh(returns, mesh, (EVERYWHERE, SPLIT), SPLIT)
    record = tuple(range(sampler.inner.steps + 1))
    measured = in_turn(lambda params, keys, _: scored(params, keys), mesh, tasks, part)

    def run(params: Params, key: PRNGKeyArray) -> Iterator[Curve]:
        check_tasks(sampler.environment, key, "evaluator")
        for returns in measured(params, key):
            yield Curve(record, {"return": returns})

    return run


def example_rollouts(
    sampler: MetaSampler, params: Params, key: PRNGKeyArray, tasks: int
) -> tuple[PyTree, list[PyTree]]:
    """Some tasks, with trajectories sampled in them before the first and after each update, for figures."""
    env_tasks = draw_tasks(sampler.environment, jax.random.split(key, tasks))
    keys = jax.random.split(jax.random.fold_in(key, 1), tasks)
    walked = jax.jit(
        lambda p: [jax.vmap(lambda t: t.first())(t) for t in sampler.rollouts(p, keys, env_tasks)]
    )
    return env_tasks, walked(params)
