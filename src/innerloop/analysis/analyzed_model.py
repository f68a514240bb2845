"""The model of an experiment: an initialisation with its algorithm, its named layers, and held-out tasks."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, get_args

import jax
import numpy as np
from jaxtyping import Array, PRNGKeyArray, PyTree

from innerloop.analysis.progress import OnProgress, no_progress
from innerloop.config.schema import Normalization
from innerloop.engine.algorithm import Algorithm, loss_key
from innerloop.engine.evaluation.evaluate import Score, check_num_tasks, number_of_tasks, over_tasks
from innerloop.engine.evaluation.intervals import half_width, mean_over_tasks
from innerloop.engine.evaluation.scores import score_shapes
from innerloop.engine.losses.loss import Adapted, evaluate_loss, with_state
from innerloop.engine.pytree import is_selected, paths
from innerloop.engine.types import Params, Task, TaskDistribution
from innerloop.errors import InnerloopError, check_choice
from innerloop.io.untrusted import JsonObject
from innerloop.nn.named_layers import NamedLayers, named_layers
from innerloop.training.experiments.experiment import Split
from innerloop.training.experiments.supervised import supervised
from innerloop.training.measure import changed
from innerloop.training.trained import Trained

MANY_QUERIES = 15
"""Queries per class when activations are compared: CCA needs many more points than neurons."""


Measure = Callable[[Params, Task, PRNGKeyArray], PyTree]
"""A function of meta-parameters, a task, and the key for its random losses, which returns a tree of arrays."""


@dataclass(frozen=True)
class AnalyzedModel:
    """An initialisation, the algorithm that adapts it, and how it is scored. Construct one for your own model.

    Attributes:
        params: the meta-parameters.
        layers: the named layers of the model. With model state, their functions get `Adapted(params, state)`, as the
            score does.
        algorithm: the algorithm, with the number of inner steps used at test time.
        score: as in `innerloop.evaluate`; tables show its `accuracy` if it has one, else its `loss`.
        tasks: held-out tasks.
        activation_tasks: the same tasks with more queries, for experiments on activations (None: `tasks`).
        initial: the meta-parameters before training, if known.
        normalization: which batch normalises a query in experiments that make their own predictions (NIL).
        chunk: number of tasks vectorised at a time.

    Raises:
        InnerloopError: if the layers do not match the model.
    """

    params: Params = field(repr=False)
    layers: NamedLayers
    algorithm: Algorithm
    score: Score
    tasks: TaskDistribution
    activation_tasks: TaskDistribution | None = None
    initial: Params | None = field(default=None, repr=False)
    normalization: Normalization = "transductive"
    chunk: int = 1

    def __post_init__(self) -> None:
        self.layers.check(self.initialization(self.params))

    @classmethod
    def from_trained(
        cls, trained: Trained, *, shots: int | None = None, steps: int | None = None, split: Split = "test"
    ) -> "AnalyzedModel":
        """Analyse a trained run with the evaluation settings of its config.

        Args:
            trained: the run.
            shots: support examples per class (None: as in the config).
            steps: inner steps (None: as in the config).
            split: `test`, `validation` or `train` classes.
        """
        evaluation = changed(trained.config.evaluation, {"steps": steps})
        data = changed(trained.config.data, {"shots": shots})
        config = replace(trained.config, evaluation=evaluation, data=data)
        check_choice("AnalyzedModel.from_trained", "split", split, get_args(Split))
        e = supervised(trained.experiment).with_config(config)
        queries = None
        if e.splits:  # as many, or all that the smallest class has left after its shots
            queries = max(1, min(MANY_QUERIES, int(e.classes_of(split).counts.min()) - config.data.shots))
        return cls(
            params=trained.params,
            layers=named_layers(e.algorithm.initialization(trained.params)),
            algorithm=e.test_algorithm,
            score=e.score(),
            tasks=e.held_out_tasks(split),
            activation_tasks=e.held_out_tasks(split, queries),
            initial=e.for_tasks(e.init_params()),
            normalization=config.evaluation.normalization,
            chunk=e.chunk or 20,
        )

    @property
    def metric(self) -> str:
        """The name of the score: `accuracy`, or `loss` for regression.

        Raises:
            InnerloopError: if the score returns neither, or no numbers by name.
        """
        task = jax.eval_shape(self.tasks.sample, jax.random.key(0))
        scores = score_shapes(self.score, self.unadapted(self.params), task)
        for name in ("accuracy", "loss"):
            if name in scores:
                return name
        raise InnerloopError("score", "must return `accuracy` or `loss`", got=", ".join(scores) or "nothing")

    @property
    def moves(self) -> str:
        """What the inner loop adapts: `head`, `body`, or `all` for some of both."""
        in_head = {self.layers.owns([self.layers.head])(path) for path in self.adapted_paths(self.algorithm)}
        return "all" if len(in_head) != 1 else "head" if in_head == {True} else "body"

    def results(self, **experiments: object) -> JsonObject:
        """Join what experiments returned to one record, for `judge` and the figures of `innerloop.report.plots`.

        Args:
            experiments: by the names that `innerloop analyze` gives them: `freeze`, `similarity`, `nil`, `weights`,
                `steps`, `paths`, `early`, `against`, and `landscape={"line": ..., "plane": ...}`.
        """
        task = jax.eval_shape(self.tasks.sample, jax.random.key(0))
        outputs = jax.eval_shape(self.layers.activations, self.unadapted(self.params), task.query.inputs)
        facts: JsonObject = {"metric": self.metric, "layers": list(self.layers.names), "moves": self.moves}
        ways = outputs[self.layers.head].shape[-1] if self.metric == "accuracy" else None
        return {**facts, "ways": ways, **experiments}

    @property
    def tasks_for_activations(self) -> TaskDistribution:
        """The tasks of experiments on activations."""
        return self.tasks if self.activation_tasks is None else self.activation_tasks

    def initialization(self, params: Params) -> Params:
        """The model's parameters among the meta-parameters."""
        return self.algorithm.initialization(params)

    def unadapted(self, params: Params) -> Params | Adapted:
        """The model's parameters, with the initial model state if there is any."""
        return with_state(self.initialization(params), self.algorithm.loss_fn)

    def start(self, params: Params, task: Task) -> Params | Adapted:
        """What the inner loop of a task starts from: the parameters, with the initial model state if there is any."""
        return with_state(self.algorithm.start(params, task.support), self.algorithm.loss_fn)

    def support_loss(self, adapted: Params | Adapted, task: Task, key: PRNGKeyArray) -> Array:
        """The loss on a task's support set; `key` is that of a random loss."""
        params, state = adapted if isinstance(adapted, Adapted) else (adapted, None)
        return evaluate_loss(self.algorithm.loss_fn, params, task.support, key, state)[0]

    def with_frozen(self, frozen: tuple[str, ...]) -> Algorithm:
        """The algorithm with the inner loop turned off for the layers in `frozen`."""
        owned = self.layers.owns(frozen)
        adapted = tuple(path for path in sorted(self.adapted_paths(self.algorithm)) if not owned(path))
        return self.algorithm.with_inner(select=adapted)

    def adapted_paths(self, algorithm: Algorithm) -> frozenset[str]:
        """The tree paths that the inner loop of an algorithm adapts."""
        every = paths(self.initialization(self.params))
        return frozenset(path for path in every if is_selected(algorithm.inner.select, path))

    def collect(
        self, one: Measure, *, num_tasks: int, key: PRNGKeyArray, on_progress: OnProgress = no_progress
    ) -> PyTree:
        """Apply a function to many tasks.

        Args:
            one: `one(params, task, key)`, which returns a tree of arrays.
            num_tasks: the number of tasks; of a finite set that is smaller, all.
            key: determines the tasks.
            on_progress: progress callback.

        Returns:
            The results of `one` as a tree of NumPy arrays with a leading axis over tasks.

        Raises:
            InnerloopError: if there are fewer than two tasks.
        """
        num_tasks = task_count(self.tasks, num_tasks)
        run = over_tasks(
            with_loss_key(one), self.tasks, num_tasks=num_tasks, batch_size=100, chunk=self.chunk
        )
        parts = []
        for values in run(self.params, key):
            parts.append(values)
            on_progress(sum(len(jax.tree.leaves(p)[0]) for p in parts), num_tasks)
        return jax.tree.map(lambda *xs: np.concatenate(xs), *parts)


def with_loss_key(one: Measure) -> Measure:
    """The same function of the key that the task is drawn with, as in `evaluate`."""
    return lambda params, task, key: one(params, task, loss_key(key))


def task_count(tasks: TaskDistribution, maximum: int) -> int:
    """The number of tasks to measure: `maximum`, or all of a finite set that is smaller.

    Raises:
        InnerloopError: if there are fewer than two, too few for a confidence interval.
    """
    return check_num_tasks(number_of_tasks(tasks, maximum), "analysis")


def interval(values: np.ndarray) -> tuple[Any, Any]:
    """Mean and half-width of its 95 % confidence interval over the leading axis (tasks), as plain numbers or lists."""
    return mean_over_tasks(values).tolist(), half_width(values).tolist()


def summary(values: np.ndarray) -> JsonObject:
    """`{"mean": ..., "ci95": ...}` over the leading axis (tasks)."""
    return dict(zip(("mean", "ci95"), interval(values), strict=True))
