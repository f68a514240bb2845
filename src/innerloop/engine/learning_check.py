"""Whether an algorithm can learn from the tasks at all: told before anything is compiled."""

from collections.abc import Callable

import jax
from jaxtyping import PRNGKeyArray, PyTree

from innerloop.engine.algorithm import Algorithm
from innerloop.engine.dependence import dependent
from innerloop.engine.diagnosis import misfit
from innerloop.engine.loss_errors import loss_errors
from innerloop.engine.types import Params, Task, TaskDistribution
from innerloop.errors import InnerloopError

DO = "look for a stop_gradient, a rounding, or a model that does not use its parameters"


def check_adapts(
    algorithm: Algorithm, params: Params, tasks: TaskDistribution, key: PRNGKeyArray, who: str
) -> Task:
    """Raise InnerloopError, on behalf of `who`, unless the inner loop learns from the support set.

    Returns:
        The shapes of a task.

    Raises:
        InnerloopError: the model has too few outputs for the classes, the loss cannot be computed on these tasks, or
            the adapted parameters do not depend on the support set.
    """
    task = jax.eval_shape(lambda key: tasks.sample(key), key)
    ways = getattr(tasks, "ways", None)
    with loss_errors(task.support):
        why = misfit(algorithm, algorithm.initialisation(params), task.support, ways) if ways else ""
        if why:
            raise InnerloopError(who, why, do="give its head as many outputs as an episode has classes")
        learns = _depends(lambda support, params: algorithm.adapt(params, support), task.support, params)
    if algorithm.inner.steps and not learns:
        wrong = (
            "the loss does not depend on the parameters that the inner loop adapts, so it would learn nothing"
        )
        raise InnerloopError(who, wrong, do=DO)
    return task


def check_query(algorithm: Algorithm, params: Params, task: Task, who: str) -> None:
    """Raise InnerloopError, on behalf of `who`, unless the loss of such a query set depends on the parameters."""
    if not all(x.size for x in jax.tree.leaves(task.query)) or not jax.tree.leaves(task.query):
        return
    slope = jax.grad(lambda params, query: algorithm.query_loss(params, query))
    with loss_errors(task.query):
        learns = _depends(lambda both: slope(*both), (algorithm.initialisation(params), task.query))
    if not learns:
        wrong = "the loss on the query set does not depend on the parameters, so nothing would be learnt"
        raise InnerloopError(who, wrong, do=DO)


def _depends(function: Callable[..., PyTree], given: PyTree, *rest: PyTree) -> bool:
    """Whether a result of `function(given, *rest)` depends on the first argument."""
    traced = jax.make_jaxpr(lambda *arguments: function(*arguments))(given, *rest)
    marks = len(jax.tree.leaves(given))
    return any(dependent(traced.jaxpr, [i < marks for i in range(len(traced.jaxpr.invars))]))
