"""Evaluation in reinforcement learning: undiscounted returns after 0..n updates on held-out tasks."""

from collections.abc import Callable, Iterator
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PRNGKeyArray, PyTree

from innerloop.engine.curve import Curve
from innerloop.engine.evaluate import check_num_tasks, iterate_batches, whole_batches
from innerloop.engine.types import Params
from innerloop.errors import InnerloopError, check_choice
from innerloop.io.text import counted
from innerloop.parallel.mesh import REPLICATED, SPLIT, task_mesh
from innerloop.parallel.param_sharding import on_mesh
from innerloop.rl.broken_trajectories import MAX_BROKEN_SHARE
from innerloop.rl.environments.base import check_tasks
from innerloop.rl.interaction import draw_tasks
from innerloop.rl.sampler import MetaSampler, sample_meta_batch


def evaluator(
    sampler: MetaSampler, *, tasks: int, part: int = 20, on_broken: Literal["raise", "keep"] = "raise"
) -> Callable[[Params, PRNGKeyArray], Iterator[Curve]]:
    """A function that measures returns on held-out tasks, compiled on its first call.

    The return after i updates is that of the trajectories sampled with theta_i. They are sampled after theta_i was
    computed, so the estimate is unbiased; the next update then learns from them. Broken trajectories
    (`innerloop.rl.broken_trajectories`) have no return: the mean is over the others, and the curve counts them.

    Args:
        sampler: collects the trajectories, with the inner loop used at test time.
        tasks: the number of held-out tasks; each has its own key.
        part: number of tasks measured at a time.
        on_broken: "raise" raises an error at the end if more than a tenth of the trajectories with any theta_i broke;
            "keep" only counts them.

    Returns:
        `run(params, key)`, which yields a Curve of `return` for every `part` tasks; its `counts` has the number of
        `broken` trajectories.

    Raises:
        InnerloopError: if there are fewer than two tasks; from `run`, if tasks do not depend on their keys, or too many
            trajectories broke.
    """
    check_choice("evaluator", "on_broken", on_broken, ("raise", "keep"))
    tasks = check_num_tasks(tasks)
    part = whole_batches(part, tasks)
    mesh = task_mesh(part)

    def returns_and_broken(params: Params, keys: Array) -> tuple[Array, Array]:
        found = sample_meta_batch(sampler, params, keys)
        return found.returns, jnp.sum(found.broken >= 0, -1)  # both `[tasks, policies]`

    scored = on_mesh(returns_and_broken, mesh, (REPLICATED, SPLIT), SPLIT)
    record = tuple(range(sampler.inner.steps + 1))
    measured = iterate_batches(lambda params, keys, _: scored(params, keys), mesh, tasks, part)

    def run(params: Params, key: PRNGKeyArray) -> Iterator[Curve]:
        check_tasks(sampler.environment, key, "evaluator")
        counts = []
        for returns, broken in measured(params, key):
            counts.append(broken)
            yield Curve(record, {"return": returns}, {"broken": broken})
        if on_broken == "raise":
            _check_broken(np.concatenate(counts), sampler)

    return run


def _check_broken(broken: np.ndarray, sampler: MetaSampler) -> None:
    """Raise InnerloopError if more than `MAX_BROKEN_SHARE` of the trajectories after any number of updates broke."""
    whole = len(broken) * sampler.trajectories
    worst = int(np.argmax(broken.sum(0)))
    maximum = int(broken[:, worst].sum())
    if maximum > MAX_BROKEN_SHARE * whole:
        wrong = f"{type(sampler.environment).__name__} broke too often for a mean over the other trajectories"
        got = f"{maximum} of {whole} broken after {counted(worst, 'update')}"
        hint = "keep rewards finite, lower the inner step size, or in Python pass on_broken='keep'"
        raise InnerloopError("evaluator", wrong, got=got, hint=hint)


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
