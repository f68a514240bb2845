"""Check, before anything is compiled, that an algorithm can learn from the tasks at all."""

from collections.abc import Callable

import jax
from jaxtyping import PRNGKeyArray, PyTree

from innerloop.engine.algorithm import Algorithm, loss_key
from innerloop.engine.checks.loss_warnings import warn_about_padding, warn_about_shared_mask
from innerloop.engine.diagnosis import explain_mismatch
from innerloop.engine.jaxprs import dependent
from innerloop.engine.losses.loss import params_of, with_params
from innerloop.engine.losses.loss_errors import loss_errors
from innerloop.engine.pytree import partition
from innerloop.engine.types import Params, Task, TaskDistribution
from innerloop.errors import InnerloopError

HINT = "look for a stop_gradient, rounding, or a model that does not use its parameters"


def check_learns(
    algorithm: Algorithm, params: Params, tasks: TaskDistribution, key: PRNGKeyArray, who: str, *, outer: bool
) -> None:
    """Raise InnerloopError, on behalf of `who`, unless there is something to learn, for the outer loop too if `outer`.

    It warns if random numbers are the same at all inner steps, or if the padding of a task changes its loss.

    Raises:
        InnerloopError: if the model has fewer outputs than an episode has classes, the loss cannot be
            computed on these tasks, the adapted parameters do not depend on the support set, or the outer
            loss depends on no parameter.
    """
    task = jax.eval_shape(lambda key: tasks.sample(key), key)
    own = {"key": loss_key(key)} if algorithm.random else {}
    adapt = lambda support, params: algorithm.adapt(params, support, **own)
    with loss_errors(task.support):
        _check_ways(algorithm, params, task, tasks, who)
        learns, adapted = _depends(adapt, task.support, params)
        warn_about_shared_mask(algorithm, params, task, key, who)
        warn_about_padding(algorithm, params, task, key, who)
    if not learns and _adapts(algorithm, params, task):
        losses = lambda support: algorithm.trajectory(params, support, key=own.get("key")).losses
        raise _unlearnable(_depends(losses, task.support)[0], who)
    sizes = [x.size for x in jax.tree.leaves(task.query)]
    if outer and algorithm.reads_query and sizes and all(sizes):
        _check_query(algorithm, adapted, task.query, own, who)


def _adapts(algorithm: Algorithm, params: Params, task: Task) -> bool:
    """Whether the inner loop takes steps, and its selection is not empty."""
    start = jax.eval_shape(algorithm.start, params, task.support)
    return algorithm.inner.steps > 0 and bool(jax.tree.leaves(partition(start, algorithm.inner.select)[0]))


def _unlearnable(reads_support: bool, who: str) -> InnerloopError:
    """The error about adapted parameters that do not depend on the support set."""
    if not reads_support:
        wrong = "the loss does not depend on the support set, so the inner loop would learn nothing from it"
        return InnerloopError(who, wrong, hint="compute the loss from its second argument, the batch")
    wrong = "the loss does not depend on the parameters that the inner loop adapts, so it would learn nothing"
    return InnerloopError(who, wrong, hint=HINT)


def _check_ways(algorithm: Algorithm, params: Params, task: Task, tasks: TaskDistribution, who: str) -> None:
    """Raise InnerloopError for a model with fewer outputs than an episode has classes, if the loss can tell."""
    ways = getattr(tasks, "ways", None)
    if not ways:
        return

    def check(params: Params, support: PyTree) -> None:
        start = algorithm.start(params, support)  # ProtoMAML makes its head here
        why = explain_mismatch(algorithm, start, support, ways)
        if why:
            raise InnerloopError(who, why, hint="give its head as many outputs as an episode has classes")

    jax.eval_shape(check, params, task.support)


def _check_query(
    algorithm: Algorithm, adapted: PyTree, query: PyTree, own: dict[str, PRNGKeyArray], who: str
) -> None:
    """Raise InnerloopError unless the loss on a query set depends on the adapted parameters."""

    def slope(given: PyTree) -> PyTree:
        adapted, query = given
        loss = lambda params: algorithm.query_loss(with_params(adapted, params), query, **own)
        return jax.grad(loss)(params_of(adapted))

    with loss_errors(query):
        learns, _ = _depends(slope, (adapted, query))
    if not learns:
        wrong = "the loss on the query set does not depend on the parameters, so nothing would be learned"
        raise InnerloopError(who, wrong, hint=HINT)


def _depends(function: Callable[..., PyTree], given: PyTree, *rest: PyTree) -> tuple[bool, PyTree]:
    """Whether a result of `function(given, *rest)` depends on the first argument, and the shapes of the results."""
    traced, shapes = jax.make_jaxpr(lambda *arguments: function(*arguments), return_shape=True)(given, *rest)
    marks = len(jax.tree.leaves(given))
    return any(dependent(traced.jaxpr, [i < marks for i in range(len(traced.jaxpr.invars))])), shapes
