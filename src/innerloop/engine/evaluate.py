"""Adaptation curves on held-out tasks: mean and 95 % interval over thousands of tasks.

For each task the parameters are adapted on the support set and scored on the query set after chosen numbers of inner
steps. The interval is 1.96 standard deviations over tasks divided by the square root of their number.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jaxtyping import Array, PRNGKeyArray, PyTree

from innerloop.engine.algorithm import Algorithm
from innerloop.engine.types import Params, Task, TaskDistribution
from innerloop.errors import InnerloopError
from innerloop.parallel.mesh import EVERYWHERE, SPLIT, by_process, place, task_mesh, to_host
from innerloop.parallel.param_sharding import on_mesh, place_cut

Score = Callable[[Params, Task], dict[str, Array]]
"""`score(adapted, task) -> {"accuracy": ..., "loss": ...}`, one number each for one task."""


@dataclass(frozen=True)
class Curve:
    """Scores after `steps` inner steps: per task `[tasks, len(steps)]`, by name."""

    steps: tuple[int, ...]
    scores: dict[str, np.ndarray]

    @property
    def tasks(self) -> int:
        """How many tasks there are."""
        return len(next(iter(self.scores.values())))

    def mean(self, name: str) -> np.ndarray:
        """Mean over tasks, `[len(steps)]`."""
        with np.errstate(invalid="ignore", over="ignore"):
            return self.scores[name].mean(0)

    def ci95(self, name: str) -> np.ndarray:
        """Half-width of the 95 % interval of the mean, `[len(steps)]`."""
        return half_width(self.scores[name])


def half_width(values: np.ndarray) -> np.ndarray:
    """Half-width of the 95 % interval of the mean over the leading axis (tasks)."""
    with np.errstate(invalid="ignore", over="ignore"):  # of diverged tasks, which are counted
        return 1.96 * values.std(0, ddof=1) / np.sqrt(len(values))


def steps_to_record(steps: int) -> tuple[int, ...]:
    """0..steps where that is short, else a spread of step numbers with both ends."""
    if steps <= 10:
        return tuple(range(steps + 1))
    spread = (0, 1, 2, 3, 5, 10, 15, 20, 32, 50, 75, 100, 150, 200, 300, 500)
    return tuple(s for s in spread if s < steps) + (steps,)


def _task_curve(
    algorithm: Algorithm, score: Score, record: Sequence[int]
) -> Callable[[Params, Task], dict[str, Array]]:
    """One task's scores at the recorded steps, `[len(record)]` each."""
    wanted = jnp.asarray(record)

    def curve(params: Params, task: Task) -> dict[str, Array]:
        shapes = jax.eval_shape(score, algorithm.initialisation(params), task)
        blank = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)

        def observe(adapted: Params, i: Array) -> dict[str, Array]:
            return jax.lax.cond(jnp.any(wanted == i), lambda: score(adapted, task), lambda: blank)

        seen = algorithm.trajectory(params, task.support, observe).observed
        return jax.tree.map(lambda x: x[wanted], seen)

    return curve


def _query_score(algorithm: Algorithm) -> Score:
    """The score that is taken where none is given: the algorithm's own loss on the query set."""
    return lambda adapted, task: {"loss": algorithm.query_loss(adapted, task.query)}


def evaluator(
    algorithm: Algorithm,
    tasks: TaskDistribution,
    score: Score | None = None,
    *,
    num_tasks: int,
    record: Sequence[int] | None = None,
    batch_size: int = 200,
    chunk: int = 1,
    model_shards: int = 1,
) -> Callable[[Params, PRNGKeyArray], Iterator[Curve]]:
    """`run(params, key)`: `evaluate`, yielding a Curve for every `batch_size` tasks so that progress can be shown.

    `model_shards` devices share one copy of the parameters, where there are so many. It is compiled at its first call
    only. Raises InnerloopError as `evaluate`.
    """
    record = steps_to_record(algorithm.inner.steps) if record is None else tuple(record)
    check_request(num_tasks, chunk, record, algorithm.inner.steps)
    curve = _task_curve(algorithm, _query_score(algorithm) if score is None else score, record)
    measured = over_tasks(
        curve, tasks, num_tasks=num_tasks, batch_size=batch_size, chunk=chunk, model_shards=model_shards
    )

    def run(params: Params, key: PRNGKeyArray) -> Iterator[Curve]:
        for values in measured(params, key):
            yield Curve(record, values)

    return run


def over_tasks(
    one: Callable[[Params, Task], PyTree],
    tasks: TaskDistribution,
    *,
    num_tasks: int,
    batch_size: int = 200,
    chunk: int = 1,
    model_shards: int = 1,
) -> Callable[[Params, PRNGKeyArray], Iterator[PyTree]]:
    """`run(params, key)`: what `one(params, task)` gives for `num_tasks` tasks, `batch_size` of them at a time.

    Yields trees of NumPy arrays with a leading axis over tasks. Task i is the same whatever is measured of it, so
    that two measurements with one key are paired. Compiled at the first call only.
    """
    batch_size = whole_batches(batch_size, num_tasks)
    # A model that was trained in shards may be measured where there are fewer devices.
    mesh = task_mesh(batch_size, model_shards=math.gcd(model_shards, *map(len, by_process(jax.devices()))))
    arrays, static = eqx.partition(tasks, eqx.is_array)

    def values(params: Params, arrays: PyTree, keys: Array) -> PyTree:
        of_key = lambda key: one(params, eqx.combine(arrays, static).sample(key))
        # A batch of one is not vmapped: batched convolutions are slower on a CPU, and a condition becomes a choice.
        return jax.lax.map(of_key, keys, batch_size=None if chunk == 1 else chunk)

    arrays = place(arrays, mesh)
    compiled = on_mesh(values, mesh, (EVERYWHERE, EVERYWHERE, SPLIT), SPLIT)
    measured = lambda params, keys: compiled(params, arrays, keys)
    return in_turn(measured, mesh, num_tasks, batch_size)


def in_turn(
    measured: Callable[[Params, Array], PyTree], mesh: Mesh, num_tasks: int, batch_size: int
) -> Callable[[Params, PRNGKeyArray], Iterator[PyTree]]:
    """`run(params, key)`: what `measured(params, keys)` gives, as NumPy arrays, `batch_size` tasks at a time."""
    keys, fetch = _keys_of(mesh, batch_size), to_host(mesh)

    def run(params: Params, key: PRNGKeyArray) -> Iterator[PyTree]:
        params = place_cut(params, mesh)  # training may have left them on fewer devices
        for first in range(0, num_tasks, batch_size):
            found = fetch(measured(params, keys(key, first)))
            yield jax.tree.map(lambda x, most=num_tasks - first: x[:most], found)

    return run


def whole_batches(batch_size: int, tasks: int) -> int:
    """Tasks measured at a time: no more than there are, rounded up to a multiple of the processes."""
    processes = len(by_process(jax.devices()))
    return -(-min(batch_size, tasks) // processes) * processes


def _keys_of(mesh: Mesh, batch_size: int) -> Callable[[PRNGKeyArray, int], Array]:
    """`keys(key, first)`: the keys of the tasks first..first+batch_size, each where its task is measured.

    Task i's key depends on i alone: neither the batch_size nor the number of devices changes the tasks.
    """
    fold = jax.vmap(jax.random.fold_in, (None, 0))
    split = NamedSharding(mesh, SPLIT)
    folded = jax.jit(lambda key, numbers: fold(key, numbers), out_shardings=split)
    return lambda key, first: folded(*place((key, np.arange(first, first + batch_size)), mesh))


def check_request(tasks: int, chunk: int, record: Sequence[int], steps: int) -> None:
    """Raise InnerloopError unless such an evaluation can be made."""
    if tasks < 2:
        raise InnerloopError("evaluate", "an interval needs at least two tasks", got=tasks)
    if chunk < 1:
        raise InnerloopError("evaluate", "`chunk` must be 1 or more", got=chunk)
    if not record or min(record) < 0 or max(record) > steps:
        raise InnerloopError("evaluate", f"recorded steps must lie in 0..{steps}", got=record)


def join(curves: Sequence[Curve]) -> Curve:
    """Curves over different tasks as one."""
    names = curves[0].scores
    return Curve(curves[0].steps, {n: np.concatenate([c.scores[n] for c in curves]) for n in names})


def evaluate(
    algorithm: Algorithm,
    params: Params,
    tasks: TaskDistribution,
    score: Score | None = None,
    *,
    key: PRNGKeyArray,
    num_tasks: int = 10_000,
    record: Sequence[int] | None = None,
    chunk: int = 1,
) -> Curve:
    """Adaptation curve on held-out tasks.

    Args:
        algorithm: adapts as it does in training; `algorithm.with_inner(steps=10)` takes more steps at test.
        params: the meta-parameters, as training left them.
        tasks: the distribution of held-out tasks.
        score: `score(adapted, task)`, numbers by name (None: the algorithm's loss on the query set, as `loss`).
        key: decides which tasks are drawn.
        num_tasks: how many.
        record: the numbers of inner steps after which `score` is taken (None: a spread of 0..steps).
        chunk: tasks vectorised at a time on each device.

    Raises InnerloopError for fewer than two tasks and for recorded steps outside 0..steps.
    """
    run = evaluator(algorithm, tasks, score, num_tasks=num_tasks, record=record, chunk=chunk)
    return join(list(run(params, key)))
