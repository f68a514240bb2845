"""Evaluation in reinforcement learning: undiscounted returns after 0..n updates on held-out tasks."""

from collections.abc import Callable, Iterator
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PRNGKeyArray, PyTree

from innerloop.engine.diagnosis import Diverged
from innerloop.engine.evaluation.curve import Curve, join
from innerloop.engine.evaluation.evaluate import check_num_tasks, iterate_batches, whole_batches
from innerloop.engine.types import Params
from innerloop.errors import check_choice
from innerloop.io.text import counted
from innerloop.parallel.compile_once import check_not_traced
from innerloop.parallel.mesh import REPLICATED, SPLIT, task_mesh
from innerloop.parallel.param_sharding import on_mesh
from innerloop.rl.broken_trajectories import MAX_BROKEN_SHARE
from innerloop.rl.environments.base import check_tasks
from innerloop.rl.fit import check_fit
from innerloop.rl.interaction import draw_tasks
from innerloop.rl.sampler import MetaSampler, check_is_sampler, returns_and_broken, split_draws

WHO = "evaluate_policy"


def evaluate_policy(
    sampler: MetaSampler,
    policy: Params,
    *,
    key: PRNGKeyArray,
    num_tasks: int,
    on_broken: Literal["raise", "keep"] = "raise",
) -> Curve:
    """The returns on held-out tasks after 0..k inner steps, as a Curve of `return`.

    The return after i steps is the mean over the trajectories of a task that act with theta_i; actions are drawn from
    the policy. They are sampled after theta_i was computed, so the estimate is unbiased; the next step then learns from
    them. Broken trajectories (a reward or a state is not finite) have no return: the mean is over the others, and the
    curve's `counts` has the number of `broken` ones.

    Args:
        sampler: collects the trajectories, with the inner loop used at test time.
        policy: the initial policy, as in the state of `MetaIterations`.
        key: determines the tasks and the actions; task i depends only on the key and i.
        num_tasks: the number of tasks, at least 2.
        on_broken: "raise" raises an error if more than a tenth of the trajectories with any theta_i broke; "keep" only
            counts them.

    Raises:
        InnerloopError: if `sampler` is something else, there are fewer than two tasks, they do not depend on
            the key, or the policy does not fit the environment.
        Diverged: an InnerloopError, for too many broken trajectories.
    """
    check_not_traced(WHO, "call it outside", policy, key)
    run = evaluator(sampler, num_tasks=num_tasks, on_broken=on_broken)
    check_fit(sampler.environment, policy)
    return join(list(run(policy, key)))


def evaluator(
    sampler: MetaSampler,
    *,
    num_tasks: int,
    batch_size: int = 20,
    on_broken: Literal["raise", "keep"] = "raise",
) -> Callable[[Params, PRNGKeyArray], Iterator[Curve]]:
    """An evaluation that is compiled once: `run(params, key)` yields a Curve for every `batch_size` tasks.

    Other arguments, and errors, as in `evaluate_policy`; too many broken trajectories are an error at the end of `run`.
    """
    check_is_sampler(sampler, WHO)
    check_choice(WHO, "on_broken", on_broken, ("raise", "keep"))
    num_tasks = check_num_tasks(num_tasks, WHO)
    batch_size = whole_batches(batch_size, num_tasks)
    mesh = task_mesh(batch_size)

    def returns_and_counts(params: Params, keys: Array) -> tuple[Array, Array]:
        rolled = sampler.rollouts(params, *split_draws(sampler.environment, keys))
        returns, broken = returns_and_broken(rolled)
        return returns, jnp.sum(broken >= 0, -1)  # both `[tasks, policies]`

    scored = on_mesh(returns_and_counts, mesh, (REPLICATED, SPLIT), SPLIT)
    record = tuple(range(sampler.inner.steps + 1))
    measured = iterate_batches(lambda params, keys, _: scored(params, keys), mesh, num_tasks, batch_size)

    def run(params: Params, key: PRNGKeyArray) -> Iterator[Curve]:
        check_tasks(sampler.environment, key, WHO)
        counts = []
        for returns, broken in measured(params, key):
            counts.append(broken)
            yield Curve(record, {"return": returns}, {"broken": broken})
        if on_broken == "raise":
            _check_broken(np.concatenate(counts), sampler)

    return run


def _check_broken(broken: np.ndarray, sampler: MetaSampler) -> None:
    """Raise Diverged if more than `MAX_BROKEN_SHARE` of the trajectories after any number of updates broke."""
    whole = len(broken) * sampler.trajectories
    worst = int(np.argmax(broken.sum(0)))
    maximum = int(broken[:, worst].sum())
    if maximum > MAX_BROKEN_SHARE * whole:
        wrong = f"{type(sampler.environment).__name__} broke too often for a mean over the other trajectories"
        got = f"{maximum} of {whole} broken after {counted(worst, 'update')}"
        hint = "keep rewards finite, lower the inner step size, or in Python pass on_broken='keep'"
        raise Diverged(WHO, wrong, got=got, hint=hint)


def example_rollouts(
    sampler: MetaSampler, params: Params, key: PRNGKeyArray, num_tasks: int
) -> tuple[PyTree, list[PyTree]]:
    """Some tasks, with trajectories sampled in them before the first and after each update, for figures."""
    env_tasks = draw_tasks(sampler.environment, jax.random.split(key, num_tasks))
    keys = jax.random.split(jax.random.fold_in(key, 1), num_tasks)
    walked = jax.jit(
        lambda p: [jax.vmap(lambda t: t.first())(t) for t in sampler.rollouts(p, keys, env_tasks)]
    )
    return env_tasks, walked(params)
