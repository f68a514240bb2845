"""What an experiment is made on: an initialisation with its algorithm, its layers, and tasks to try it on."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import jax
import numpy as np
from jaxtyping import Array, PRNGKeyArray

from innerloop.config.schema import Normalization
from innerloop.engine.algorithm import Algorithm
from innerloop.engine.evaluate import Score, half_width, over_tasks
from innerloop.engine.pytree import Selection, chosen, paths
from innerloop.engine.types import Params, Task, TaskDistribution
from innerloop.errors import InnerloopError
from innerloop.nn.named_layers import NamedLayers, named_layers
from innerloop.tasks.class_arrays import ClassArrays
from innerloop.training.supervised import supervised
from innerloop.training.trained import Trained

Watch = Callable[[int, int], None]
"""`watch(done, total)`: told how far an experiment is."""

MANY_QUERIES = 15
"""Queries of each class where activations are compared: CCA needs many more points than neurons."""


def unwatched(done: int, total: int) -> None:
    """No progress."""


@dataclass(frozen=True)
class Subject:
    """An initialisation, the algorithm that adapts it, and how it is judged. Models of one's own: fill in the fields.

    params: the meta-parameters. algorithm: with its inner steps at test. score: as in `innerloop.evaluate`; its
    `accuracy`, else its `loss`, is what tables show. tasks: held-out tasks. close_up: the same with more queries, for
    experiments that look at activations (None: `tasks`). initial: the meta-parameters before training, where known.
    normalization: whose statistics normalise a query where an experiment predicts by itself (NIL).
    """

    params: Params
    layers: NamedLayers
    algorithm: Algorithm
    score: Score
    tasks: TaskDistribution
    close_up: TaskDistribution | None = None
    initial: Params | None = None
    normalization: Normalization = "transductive"
    chunk: int = 1

    def __post_init__(self) -> None:
        self.layers.check(self.theta(self.params))

    @property
    def metric(self) -> str:
        """What counts: `accuracy` (higher is better), or `loss` for regression."""
        task = jax.eval_shape(self.tasks.sample, jax.random.key(0))
        scores = jax.eval_shape(self.score, self.theta(self.params), task)
        return "accuracy" if "accuracy" in scores else "loss"

    def theta(self, params: Params) -> Params:
        """The model's parameters among meta-parameters: where every task begins."""
        return self.algorithm.initialisation(params)

    def without(self, frozen: tuple[str, ...]) -> Algorithm:
        """The algorithm with its inner loop switched off for some layers."""
        owned, own = self.layers.owns(frozen), self.algorithm.inner.select
        return self.algorithm.with_inner(select=lambda path: chosen(own, path) and not owned(path))

    def moving(self, algorithm: Algorithm) -> frozenset[str]:
        """The paths that an algorithm's inner loop moves."""
        every = paths(self.theta(self.params))
        return frozenset(path for path in every if chosen(algorithm.inner.select, path))

    def collect(
        self,
        one: Callable[[Params, Task], Any],
        *,
        tasks: int,
        key: PRNGKeyArray,
        watch: Watch = unwatched,
        close_up: bool = False,
        part: int = 100,
    ) -> Any:
        """`one(params, task)` for `tasks` tasks: a tree of arrays with a leading axis over tasks."""
        check_tasks(tasks)
        distribution = self.close_up if close_up and self.close_up is not None else self.tasks
        run = over_tasks(one, distribution, num_tasks=tasks, batch_size=part, chunk=self.chunk)
        parts = []
        for values in run(self.params, key):
            parts.append(values)
            watch(sum(len(jax.tree.leaves(p)[0]) for p in parts), tasks)
        return jax.tree.map(lambda *xs: np.concatenate(xs), *parts)


def check_tasks(tasks: int) -> None:
    """Raise InnerloopError where no interval can be given."""
    if tasks < 2:
        raise InnerloopError("analysis", "an interval needs at least two tasks", got=tasks)


def interval(values: np.ndarray) -> tuple[Any, Any]:
    """Mean and half-width of its 95 % interval over the leading axis (tasks), as plain numbers or lists."""
    return values.mean(0).tolist(), half_width(values).tolist()


def selected(selection: Selection, tree: Params) -> list[Array]:
    """The leaves of a tree that a selection holds."""
    leaves = zip(paths(tree), jax.tree.leaves(tree), strict=True)
    return [leaf for path, leaf in leaves if chosen(selection, path)]


def subject_of(
    trained: Trained, *, shots: int | None = None, steps: int | None = None, part: str = "test"
) -> Subject:
    """A trained run as it is evaluated by its config (`shots`, inner `steps`: other than there)."""
    config = trained.config
    if steps is not None:
        config = replace(config, evaluation=replace(config.evaluation, steps=steps))
    if shots is not None:
        config = replace(config, data=replace(config.data, shots=shots))
    e = supervised(trained.experiment).with_config(config)
    queries = most_queries(e.splits.test, config.data.shots) if e.splits else None
    return Subject(
        params=trained.params,
        layers=named_layers(e.algorithm.initialisation(trained.params)),
        algorithm=e.test_algorithm,
        score=e.score(),
        tasks=e.held_out_tasks(part),
        close_up=e.held_out_tasks(part, queries),
        initial=e.for_tasks(e.init_params()),
        normalization=config.evaluation.normalization,
        chunk=e.chunk or 20,
    )


def most_queries(test: ClassArrays, shots: int) -> int:
    """`MANY_QUERIES` of each class, or as many as the smallest class has beside its shots."""
    return max(1, min(MANY_QUERIES, int(np.min(test.counts)) - shots))
