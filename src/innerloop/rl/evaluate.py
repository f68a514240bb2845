"""What is reported of a policy that learns: undiscounted returns after 0..n updates on held-out tasks."""

from collections.abc import Callable, Iterator
from typing import Any

import jax
from jaxtyping import PRNGKeyArray

from innerloop.engine.evaluate import Curve, check_request, in_turn, whole_batches
from innerloop.engine.types import Params
from innerloop.parallel.mesh import EVERYWHERE, SPLIT, task_mesh
from innerloop.parallel.param_sharding import on_mesh
from innerloop.rl.sampler import MetaSampler, sampled


def evaluator(
    collector: MetaSampler, *, tasks: int, part: int = 20
) -> Callable[[Params, PRNGKeyArray], Iterator[Curve]]:
    """`run(params, key)`: a Curve of `return` for every `part` tasks, each drawn by its own key.

    The return after i updates is that of the trajectories with theta_i, which the next update then learns from: they
    are drawn after theta_i was made, so they judge it fairly. It is compiled at its first call only. Raises
    InnerloopError for fewer than two tasks.
    """
    check_request(tasks, 1, (0,), collector.inner.steps)
    part = whole_batches(part, tasks)
    mesh = task_mesh(part)
    returns = lambda params, keys: sampled(collector, params, keys).returns
    scored = on_mesh(returns, mesh, (EVERYWHERE, SPLIT), SPLIT)
    record = tuple(range(collector.inner.steps + 1))
    measured = in_turn(scored, mesh, tasks, part)
    return lambda params, key: (Curve(record, {"return": x}) for x in measured(params, key))


def paths(collector: MetaSampler, params: Params, key: PRNGKeyArray, tasks: int) -> tuple[Any, list[Any]]:
    """Tasks, and the trajectories in them before and after each update, for looking at."""
    worlds = jax.vmap(collector.environment.sample_task)(jax.random.split(key, tasks))
    keys = jax.random.split(jax.random.fold_in(key, 1), tasks)
    walked = jax.jit(lambda p: [jax.vmap(lambda t: t.first())(t) for t in collector.walk(p, keys, worlds)])
    return worlds, walked(params)
