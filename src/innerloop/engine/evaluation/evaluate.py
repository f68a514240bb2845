"""Adaptation curves on held-out tasks, with 95 % intervals.

For each task the parameters are adapted on the support set and scored on the query set after selected numbers of inner
steps. `innerloop.engine.evaluation.intervals` defines the mean and the interval.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from typing import Literal, NoReturn

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jaxtyping import Array, PRNGKeyArray, PyTree

from innerloop.engine.algorithm import Algorithm, check_is_algorithm, loss_key
from innerloop.engine.checks.learning_check import check_learns
from innerloop.engine.diagnosis import Diverged, Place, advice, first_nonfinite_leaf, locate_in_adaptation
from innerloop.engine.distribution import check_distribution, split_arrays, with_jax_arrays
from innerloop.engine.evaluation.curve import Curve, join
from innerloop.engine.evaluation.scores import Score as Score
from innerloop.engine.evaluation.scores import score_shapes, start_shapes
from innerloop.engine.trainable import check_trainable
from innerloop.engine.types import FiniteTasks, Params, Task, TaskDistribution
from innerloop.errors import InnerloopError, check_choice, check_count
from innerloop.io.text import counted
from innerloop.parallel.compile_once import check_not_traced
from innerloop.parallel.mesh import REPLICATED, SPLIT, by_process, replicate, task_mesh, to_host
from innerloop.parallel.param_sharding import on_mesh, shard_params


def steps_to_record(steps: int) -> tuple[int, ...]:
    """The numbers of inner steps to record: all of 0..steps if these are few, else a selection with both ends."""
    if steps <= 10:
        return tuple(range(steps + 1))
    spread = (0, 1, 2, 3, 5, 10, 15, 20, 32, 50, 75, 100, 150, 200, 300, 500)
    return tuple(s for s in spread if s < steps) + (steps,)


def _task_curve(
    algorithm: Algorithm, given: Score | None, record: Sequence[int]
) -> Callable[[Params, Task, PRNGKeyArray], dict[str, Array]]:
    """A function `(params, task, key)` that returns a task's scores at the recorded steps, `[len(record)]` each."""
    wanted = jnp.asarray(record)

    def curve(params: Params, task: Task, key: PRNGKeyArray) -> dict[str, Array]:
        own = loss_key(key) if algorithm.random else None
        query_loss = lambda adapted, task: {"loss": algorithm.query_loss(adapted, task.query, key=own)}
        score = query_loss if given is None else given
        try:
            shapes = score_shapes(score, start_shapes(algorithm, params, task), task)
        except InnerloopError as error:
            if given is None and not jax.tree.leaves(task.query):
                raise InnerloopError(
                    "evaluate", "these tasks have no query set", hint="pass `score=`"
                ) from error
            raise
        blank = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)

        def observe(adapted: Params, i: Array) -> dict[str, Array]:
            return jax.lax.cond(jnp.any(wanted == i), lambda: score(adapted, task), lambda: blank)

        seen = algorithm.trajectory(params, task.support, observe, key=own).observed
        return jax.tree.map(lambda x: x[wanted], seen)

    return curve


def evaluator(
    algorithm: Algorithm,
    tasks: TaskDistribution,
    score: Score | None = None,
    *,
    num_tasks: int,
    record: Sequence[int] | None = None,
    batch_size: int = 200,
    chunk: int | None = 1,
    model_shards: int = 1,
) -> Callable[[Params, PRNGKeyArray], Iterator[Curve]]:
    """An evaluation that is compiled once: `run(params, key)` yields a Curve for every batch of tasks.

    Other arguments, and errors, as in `evaluate`.

    Args:
        batch_size: the number of tasks per Curve.
        model_shards: the number of devices that share one copy of the parameters, if there are that many.
    """
    num_tasks = check_num_tasks(num_tasks)
    chunk = chunk if chunk is None else check_count("evaluate", "chunk", chunk)
    batch_size = check_count("evaluate", "batch_size", batch_size)
    steps = algorithm.inner.steps
    recorded = steps_to_record(steps) if record is None else _check_record(record, steps)
    curve = _task_curve(algorithm, score, recorded)
    measured = over_tasks(
        curve, tasks, num_tasks=num_tasks, batch_size=batch_size, chunk=chunk, model_shards=model_shards
    )
    return lambda params, key: (Curve(recorded, values) for values in measured(params, key))


def over_tasks(
    one: Callable[[Params, Task, PRNGKeyArray], PyTree],
    tasks: TaskDistribution,
    *,
    num_tasks: int,
    batch_size: int = 200,
    chunk: int | None = 1,
    model_shards: int = 1,
) -> Callable[[Params, PRNGKeyArray], Iterator[PyTree]]:
    """A measurement that is compiled once: `run(params, key)` yields `one(params, task, key)` for every batch of tasks.

    The results are NumPy arrays with a leading axis over the tasks of a batch. Task i depends only on the key and i, so
    two measurements with the same key are paired. If the number of tasks is finite, none is measured twice.
    """
    num_tasks = number_of_tasks(tasks, num_tasks)
    batch_size = whole_batches(batch_size, num_tasks)
    # A model trained in shards may be evaluated on fewer devices.
    mesh = task_mesh(batch_size, model_shards=math.gcd(model_shards, *map(len, by_process(jax.devices()))))
    held, with_arrays = split_arrays(tasks)

    def values(params: Params, arrays: PyTree, keys: Array, numbers: Array) -> PyTree:
        of_key = lambda drawn: one(params, _task_of(with_arrays(arrays), *drawn), drawn[0])
        # A chunk of one is not vmapped: batched convolutions are slower on a CPU, and `cond` becomes `select`.
        at_once = len(keys) if chunk is None else chunk
        return jax.lax.map(of_key, (keys, numbers), batch_size=None if at_once == 1 else at_once)

    arrays = replicate(held, mesh)
    compiled = on_mesh(values, mesh, (REPLICATED, REPLICATED, SPLIT, SPLIT), SPLIT)
    measured = lambda params, keys, numbers: compiled(params, arrays, keys, numbers)
    return iterate_batches(measured, mesh, num_tasks, batch_size)


def _task_of(tasks: TaskDistribution, key: PRNGKeyArray, number: Array) -> Task:
    """Task `number` of an evaluation: drawn with its key, or taken by number from a finite set."""
    return tasks.task(number, key) if isinstance(tasks, FiniteTasks) else tasks.sample(key)


def iterate_batches(
    measured: Callable[[Params, Array, Array], PyTree], mesh: Mesh, num_tasks: int, batch_size: int
) -> Callable[[Params, PRNGKeyArray], Iterator[PyTree]]:
    """`run(params, key)`: yields `measured(params, keys, numbers)` as NumPy arrays for every batch of tasks."""
    # The key of task i depends only on i, so neither the batch size nor the number of devices changes the tasks.
    folded, fetch = _folded(NamedSharding(mesh, SPLIT)), to_host(mesh)

    def run(params: Params, key: PRNGKeyArray) -> Iterator[PyTree]:
        params = shard_params(params, mesh)  # training may have left them on fewer devices
        for first in range(0, num_tasks, batch_size):
            numbers = np.arange(first, first + batch_size)
            found = fetch(measured(params, *folded(*replicate((key, numbers), mesh))))
            yield jax.tree.map(lambda x, maximum=num_tasks - first: x[:maximum], found)

    return run


def whole_batches(batch_size: int, tasks: int) -> int:
    """The batch size to use: at most the number of tasks, rounded up to a multiple of the number of processes."""
    processes = len(by_process(jax.devices()))
    return -(-min(batch_size, tasks) // processes) * processes


@lru_cache
def _folded(split: NamedSharding) -> Callable[[PRNGKeyArray, Array], tuple[Array, Array]]:
    """The compiled function from a key and task numbers to the keys of the tasks, and their numbers."""
    fold = jax.vmap(jax.random.fold_in, (None, 0))
    return jax.jit(lambda key, numbers: (fold(key, numbers), numbers), out_shardings=split)


def number_of_tasks(tasks: object, maximum: int) -> int:
    """The number of tasks to measure: `maximum`, or all of a finite set that is smaller."""
    return min(maximum, len(tasks)) if isinstance(tasks, FiniteTasks) else maximum


def check_num_tasks(num_tasks: int, who: str = "evaluate") -> int:
    """Return a number of tasks as an `int`. Raises InnerloopError if it is below two."""
    num_tasks = check_count(who, "num_tasks", num_tasks, 0)
    if num_tasks < 2:
        raise InnerloopError(who, "an interval needs at least two tasks", got=num_tasks)
    return num_tasks


def _check_record(record: Sequence[int], steps: int) -> tuple[int, ...]:
    """Return recorded steps as integers. Raises InnerloopError unless they are a sequence of numbers in 0..steps."""
    try:
        recorded = tuple(check_count("evaluate", "record", number, 0, steps) for number in record)
    except TypeError:
        hint = "give several numbers of steps, such as (0, 5)"
        raise InnerloopError("evaluate", "`record` must be a sequence", got=repr(record), hint=hint) from None
    except InnerloopError:
        recorded = ()
    if not recorded:
        raise InnerloopError("evaluate", f"recorded steps must lie in 0..{steps}", got=record)
    return recorded


def _number_of_tasks(tasks: TaskDistribution, asked: int | None) -> int:
    """The number of tasks to evaluate. Raises InnerloopError if there are fewer than `asked`."""
    asked = None if asked is None else check_num_tasks(asked)
    if not isinstance(tasks, FiniteTasks):
        return 10_000 if asked is None else asked
    if asked is not None and asked > len(tasks):
        wrong = f"the set has {counted(len(tasks), 'task')}"
        hint = "omit `num_tasks` to evaluate each task once"
        raise InnerloopError("evaluate", wrong, got=asked, hint=hint)
    return len(tasks) if asked is None else asked


def evaluate(
    algorithm: Algorithm,
    params: Params,
    tasks: TaskDistribution,
    score: Score | None = None,
    *,
    key: PRNGKeyArray,
    num_tasks: int | None = None,
    record: Sequence[int] | None = None,
    chunk: int | None = 1,
    on_nonfinite: Literal["raise", "keep"] = "raise",
) -> Curve:
    """The adaptation curve on held-out tasks.

    Args:
        algorithm: adapts as in training; `algorithm.with_inner(steps=10)` takes more steps at test time.
        params: the meta-parameters, as in the state of the outer loop.
        tasks: the distribution of held-out tasks. A finite set of tasks (`TaskList`, groups of a table) is evaluated
            in order, each task once.
        score: `score(adapted, task)` returns scalars by name (None: the algorithm's loss on the query set, as `loss`).
        key: determines which tasks are drawn.
        num_tasks: the number of tasks, at least 2 (None: 10 000, or all tasks of a finite set).
        record: the numbers of inner steps after which to score (None: a selection of 0..steps).
        chunk: the number of tasks vectorised at a time on each device, as for `OuterLoop` (None: its whole share of the
            200 tasks in a batch).
        on_nonfinite: "raise" raises an error if a task has a score that is not finite; "keep" leaves such tasks in the
            curve, whose `nonfinite` marks them.

    Raises:
        Diverged: an InnerloopError that names the first task with such a score, and its inner step.
        InnerloopError: if there are fewer than two tasks, recorded steps lie outside 0..steps, `key` is not a
            key, the tasks do not depend on it, or `score` returns something other than scalars by name.
    """
    check_is_algorithm(algorithm, "evaluate")
    hint = "call it outside, or take jax.vmap of `algorithm.trajectory` over tasks"
    check_not_traced("evaluate", hint, params, key)
    check_trainable(params, "evaluate")
    check_choice("evaluate", "on_nonfinite", on_nonfinite, ("raise", "keep"))
    tasks = with_jax_arrays(tasks)
    check_distribution(tasks, key, "evaluate")
    check_learns(algorithm, params, tasks, key, "evaluate", outer=False)
    count = _number_of_tasks(tasks, num_tasks)
    run = evaluator(algorithm, tasks, score, num_tasks=count, record=record, chunk=chunk)
    curve = join(list(run(params, key)))
    if on_nonfinite == "raise" and curve.nonfinite.any():
        _raise_diverged(curve, algorithm, params, tasks, key)
    return curve


def _raise_diverged(
    curve: Curve, algorithm: Algorithm, params: Params, tasks: TaskDistribution, key: PRNGKeyArray
) -> NoReturn:
    """Raise Diverged for the first task with a score that is not finite."""
    number = int(np.argmax(curve.nonfinite))
    own = jax.random.fold_in(key, number)
    task = jax.jit(lambda key: _task_of(tasks, key, jnp.asarray(number)))(own)
    place = locate_in_adaptation(algorithm, params, task.support)
    in_data = first_nonfinite_leaf(task.query) is not None
    place = place or (Place("data", "its query data") if in_data else Place("computation", "the score"))
    hint = advice(place, "the step size", "")
    hint += ", or pass `on_nonfinite='keep'` and read `curve.nonfinite`"
    got = f"{curve.nonfinite.sum()} such tasks of {curve.tasks}"
    raise Diverged(
        "evaluate", f"task {number} (counted from 0) is not finite in {place.text}", got=got, hint=hint
    )
