"""The parts of a run of `innerloop.fit`: the caller's own algorithm, parameters and tasks."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import jax
import optax
from jax.sharding import Mesh

from innerloop.engine.algorithm import Algorithm
from innerloop.engine.checks.learning_check import check_learns
from innerloop.engine.distribution import check_distribution, check_samples, with_jax_arrays
from innerloop.engine.evaluation.evaluate import Score, evaluator
from innerloop.engine.evaluation.scores import score_shapes, start_shapes
from innerloop.engine.outer.outer_loop import GradientLoop, OuterLoop
from innerloop.engine.types import Params, TaskDistribution
from innerloop.errors import InnerloopError
from innerloop.tasks.iterator_loop import IteratorOuterLoop
from innerloop.tasks.streaming import StreamedEpisodes, StreamedOuterLoop
from innerloop.training.custom.custom_run import CustomRun
from innerloop.training.diagnosis import nan_diagnosis
from innerloop.training.experiments.experiment import Evaluator


@dataclass(frozen=True)
class Validation:
    """The tasks and score of validation; without a score, the algorithm's loss on the query set."""

    tasks: TaskDistribution
    score: Score | None = None

    def check(self, algorithm: Algorithm, params: Params, seed: int) -> list[str]:
        """The names of the scores. Raises InnerloopError if they cannot be measured."""
        key = jax.random.key(seed)
        tasks = with_jax_arrays(self.tasks)
        check_distribution(tasks, key, "fit", "validation")
        check_learns(algorithm, params, tasks, key, "fit", outer=self.score is None)
        if self.score is None:
            return ["loss"]
        task = jax.eval_shape(tasks.sample, key)
        return list(score_shapes(self.score, start_shapes(algorithm, params, task), task))


@dataclass(frozen=True)
class SupervisedRun(CustomRun):
    """The parts of a run of `innerloop.fit`."""

    CALLER = nan_diagnosis.FIT
    OOM = (
        "vectorise fewer tasks at a time (`chunk=1`), lower `meta_batch`, or set "
        "`InnerLoop(derivative='rematerialised')`"
    )

    loop: GradientLoop
    tasks: Any
    validation: Validation | None

    def held_out_tasks(self, split: str = "validation") -> TaskDistribution | None:
        """The distribution of validation tasks."""
        return self.validation.tasks if self.validation else None

    def evaluator(self, held_out: object, *, num_tasks: int, last_only: bool = False) -> Evaluator:
        """The compiled evaluation on the validation tasks, before the first and after the last inner step."""
        assert self.validation is not None
        algorithm, given = self.loop.algorithm, self.validation
        record = sorted({0, algorithm.inner.steps})
        chunk = self.loop.chunk
        return evaluator(algorithm, given.tasks, given.score, num_tasks=num_tasks, record=record, chunk=chunk)

    def check_resumable(self) -> None:
        """Raise InnerloopError if the meta-batches come from an iterator, which cannot be resumed in the middle."""
        if isinstance(self.loop, IteratorOuterLoop) and not self.loop.resumable:
            wrong = "an iterator cannot be resumed exactly: how far it was read is not known"
            hint = "pass a function `tasks(step)` that returns an iterator over the meta-batches from that step on"
            raise InnerloopError("resume", wrong, hint=hint)


def loop_over(
    tasks: Any,
    algorithm: Algorithm,
    optimizer: optax.GradientTransformation,
    *,
    meta_batch: int,
    chunk: int | None,
    mesh: Mesh | None,
) -> GradientLoop:
    """The outer loop for tasks of any kind. Raises InnerloopError as the loops do."""
    kind: Any = OuterLoop
    if isinstance(tasks, StreamedEpisodes):
        kind = StreamedOuterLoop
    elif not hasattr(tasks, "sample") and (callable(tasks) or isinstance(tasks, Iterable)):
        kind = IteratorOuterLoop
    else:
        check_samples(tasks, "fit")
    return kind(algorithm, optimizer, tasks, meta_batch=meta_batch, chunk=chunk, mesh=mesh)
