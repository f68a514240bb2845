"""Builds the parts of a supervised run from a config: data, model, loss, algorithm, optimisers."""

from dataclasses import dataclass, replace
from typing import Any

import equinox as eqx
import jax
import optax
from jaxtyping import Array

from innerloop.config.data_settings import SORT
from innerloop.config.schema import Config, Normalization
from innerloop.engine.algorithm import Algorithm
from innerloop.engine.evaluation.evaluate import Score, evaluator, steps_to_record
from innerloop.engine.losses.loss import Loss
from innerloop.engine.outer.mesh_loop import MeshLoop
from innerloop.engine.outer.outer_loop import OuterLoop
from innerloop.engine.types import Batch, LossFn, Params, Task, TaskDistribution
from innerloop.errors import InnerloopError
from innerloop.nn.layers import Linear
from innerloop.nn.losses import (
    accuracy,
    call,
    cross_entropy,
    mean_squared_error,
    softmax_cross_entropy,
    squared_error,
)
from innerloop.nn.normalization import predict
from innerloop.parallel.mesh import task_mesh
from innerloop.tasks import fingerprint
from innerloop.tasks.augmentation import Augmented
from innerloop.tasks.class_arrays import ClassArrays, Splits
from innerloop.tasks.episodes import Episodes, check_episode, rotated_names, with_rotations
from innerloop.tasks.sinusoid import Sinusoid
from innerloop.tasks.supervised import SupervisedBatches
from innerloop.training.experiments.experiment import Evaluator, Experiment
from innerloop.training.experiments.models import fresh_model, sinusoid_shape
from innerloop.training.experiments.optimizers import inner_loop, outer_optimizer


@dataclass(frozen=True)
class SupervisedExperiment(Experiment):
    """The parts of a run on examples. `splits` is None for sinusoids, whose sets of tasks differ only by their keys."""

    splits: Splits | None = None

    @property
    def classification(self) -> bool:
        """Whether tasks are episodes of classes."""
        return self.config.data.spec.kind == "images"

    def with_config(self, config: Config) -> "SupervisedExperiment":
        """The same data with other settings."""
        return replace(self, config=config)

    def data_hashes(self) -> dict[str, str]:
        """SHA-256 of each set of classes; none for sinusoids."""
        return fingerprint.data_hashes(self.splits)

    def init_params(self) -> Params:
        """The meta-parameters before training."""
        shape = self.example_shape
        outputs = self.classes_of("train").classes if self.splits and self.pretrains else None
        # As one program: compiling the many small ones of a model's layers takes seconds.
        draw = eqx.filter_jit(lambda key: self.algorithm.init(fresh_model(self.config, shape, key, outputs)))
        return draw(self.keys().init)

    @property
    def example_shape(self) -> tuple[int, ...]:
        """The shape of the inputs of one example."""
        return self.splits.train.shape if self.splits else sinusoid_shape(self.config)

    @property
    def pretrains(self) -> bool:
        """Whether training is ordinary classification of all training classes (the pre-trained baseline)."""
        return self.classification and not self.config.spec.adapts_in_training

    def for_tasks(self, params: Params) -> Params:
        """The parameters to evaluate on held-out tasks; after pre-training, with a new head of `ways` outputs."""
        if not self.pretrains:
            return params
        head = Linear(params.head.weight.shape[0], self.config.data.ways, key=self.keys().init, scale=0.0)
        return eqx.tree_at(lambda model: model.head, params, head)

    def train_tasks(self) -> TaskDistribution:
        """The distribution that training draws from."""
        data = self.config.data
        shots = data.training_shots
        if self.splits is None:
            plain = Sinusoid(shots, data.queries, protocol=data.protocol, oracle=data.oracle)
        elif self.pretrains:
            plain = SupervisedBatches(self.classes_of("train"), data.ways * (shots + data.queries))
        else:
            plain = Episodes(self.classes_of("train"), data.ways, shots, self.training_queries)
        if not data.augmented:
            return plain
        return Augmented(plain, flip=data.flip, crop=data.crop, rotation=data.rotate)

    @property
    def training_queries(self) -> int:
        """Query examples per class in training; none if the algorithm does not read them."""
        return self.config.data.queries if self.config.spec.reads_query else 0

    def held_out_tasks(self, split: str = "test", queries: int | None = None) -> TaskDistribution:
        """Tasks of a split of the classes (for sinusoids: of the same family)."""
        data = self.config.data
        queries = self.config.evaluation.queries if queries is None else queries
        if self.splits is None:
            return Sinusoid(data.shots, queries, protocol=data.protocol, oracle=data.oracle)
        self.check_split(split, data.shots, queries)
        return Episodes(self.classes_of(split), data.ways, data.shots, queries)

    def check_classes(self) -> None:
        """Raise InnerloopError unless every set has enough classes and examples for its episodes."""
        if self.splits is None:
            return
        data, queries = self.config.data, self.config.evaluation.queries
        if not self.pretrains:
            self.check_split("train", data.training_shots, self.training_queries)
        for split in ("validation", "test"):
            self.check_split(split, data.shots, queries)

    def check_split(self, split: str, shots: int, queries: int) -> None:
        """Raise InnerloopError unless this set has enough classes and examples for such episodes."""
        hint = f"lower `data.shots` or `{'data' if split == 'train' else 'evaluation'}.queries`"
        if self.config.data.spec.divided:
            hint += f", or leave out small classes with `data.min_examples` {shots + queries}"
        check_episode(
            self.classes_of(split),
            self.config.data.ways,
            shots,
            queries,
            who=f"{split} classes",
            hint=hint,
            more_classes=self.more_classes(),
        )

    def more_classes(self) -> str:
        """What to do about a set with fewer classes than an episode needs."""
        assert self.splits is not None
        hint = "lower `data.ways` or add classes"
        if not self.config.data.spec.divided:
            return hint
        train, validation, test = (split.classes for split in self.splits)
        parts = f"{train} for training, {validation} for validation and {test} for test"
        return f"the folder's classes are divided into {parts}: {hint}, or {SORT}"

    def is_rotated(self, split: str) -> bool:
        """Whether the classes of a set are rotated by multiples of 90 degrees, as in Omniglot's protocol."""
        return self.config.data.rotations and (split == "train" or self.config.evaluation.rotations)

    def classes_of(self, split: str) -> ClassArrays:
        """The classes of a set, with rotated ones if configured."""
        arrays = getattr(self.splits, split)
        return with_rotations(arrays) if self.is_rotated(split) else arrays

    def class_names(self, split: str = "test") -> tuple[str, ...]:
        """The names of the classes, in the numbering of `held_out_tasks`; empty for sinusoids."""
        names = getattr(self.splits, split).names if self.splits else ()
        return rotated_names(names) if self.is_rotated(split) else names

    @property
    def loss_fn(self) -> LossFn:
        """Cross-entropy for episodes, mean squared error for sinusoids."""
        return cross_entropy() if self.classification else mean_squared_error()

    @property
    def chunk(self) -> int | None:
        """Tasks vectorised at a time: on a CPU, convolutions are faster one task at a time."""
        conv_on_cpu = self.config.model.kind == "conv4" and jax.default_backend() == "cpu"
        return 1 if self.config.outer.chunk is None and conv_on_cpu else self.config.outer.chunk

    @property
    def algorithm(self) -> Algorithm:
        """The configured algorithm on the configured loss."""
        spec, c = self.config.spec, self.config.inner
        return spec.make(self.loss_fn, inner_loop(c, spec.second_order, spec.learns_rates), settings=c)

    @property
    def logged_algorithm(self) -> Algorithm:
        """The algorithm with query accuracy as an auxiliary output for the log, in classification with a query loss."""
        logs_accuracy = self.classification and self.config.spec.reads_query
        return (
            replace(self.algorithm, outer_loss_fn=Loss(_loss_and_accuracy, aux=True))
            if logs_accuracy
            else self.algorithm
        )

    @property
    def test_algorithm(self) -> Algorithm:
        """The algorithm with its inner steps at test."""
        e = self.config.evaluation
        return self.algorithm.with_inner(steps=e.steps, minibatch=e.minibatch)

    def score(self, normalization: Normalization | None = None) -> Score:
        """The scores on a held-out task: accuracy and loss, or only the loss for regression."""
        mode = self.config.evaluation.normalization if normalization is None else normalization

        def scores(params: Params, task: Task) -> dict[str, Array]:
            outputs = predict(call, params, task.support.inputs, task.query.inputs, mode)
            targets, mask = task.query.targets, task.query.mask
            if not self.classification:
                return {"loss": squared_error(outputs, targets, mask)}
            loss = softmax_cross_entropy(outputs, targets, mask)
            return {"accuracy": accuracy(outputs, targets, mask), "loss": loss}

        return scores

    @property
    def optimizer(self) -> optax.GradientTransformation:
        """The outer optimiser."""
        return outer_optimizer(self.config.outer)

    def outer_loop(self) -> MeshLoop:
        """The outer loop on the result of `train_tasks`."""
        algorithm, tasks, c = self.logged_algorithm, self.train_tasks(), self.config.outer
        mesh = task_mesh(c.meta_batch, model_shards=c.model_shards)
        return OuterLoop(
            algorithm, self.optimizer, tasks, meta_batch=c.meta_batch, chunk=self.chunk, mesh=mesh
        )

    def evaluator(self, held_out: Any, *, num_tasks: int, last_only: bool = False) -> Evaluator:
        """The compiled evaluation on the result of `held_out_tasks`."""
        steps = self.config.evaluation.steps
        return evaluator(
            self.test_algorithm,
            held_out,
            self.score(),
            num_tasks=num_tasks,
            record=sorted({0, steps}) if last_only else steps_to_record(steps),
            chunk=self.chunk or 50,
            model_shards=self.config.outer.model_shards,
        )


def _loss_and_accuracy(params: Params, batch: Batch) -> tuple[Array, dict[str, Array]]:
    """The cross-entropy loss and the accuracy."""
    outputs = call(params, batch.inputs)
    loss = softmax_cross_entropy(outputs, batch.targets, batch.mask)
    return loss, {"accuracy": accuracy(outputs, batch.targets, batch.mask)}


def supervised(experiment: Experiment) -> SupervisedExperiment:
    """The experiment, if it learns from examples. Raises InnerloopError if it trains a policy."""
    if not isinstance(experiment, SupervisedExperiment):
        raise InnerloopError(experiment.config.name, "is a policy and does not learn from examples")
    return experiment
