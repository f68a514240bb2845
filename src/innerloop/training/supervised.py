"""From a config to the parts of a run: data, model, loss, algorithm, optimisers."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import equinox as eqx
import jax
import optax
from jaxtyping import Array, PRNGKeyArray

from innerloop.config.schema import Config, Normalization
from innerloop.engine.algorithm import Algorithm
from innerloop.engine.evaluate import Curve, Score, evaluator
from innerloop.engine.outer import MeshLoop, OuterLoop
from innerloop.engine.types import LossFn, Params, Task, TaskDistribution
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
from innerloop.tasks.class_arrays import ClassArrays, Splits
from innerloop.tasks.episodes import Episodes, check_episode, with_rotations
from innerloop.tasks.sinusoid import Sinusoid
from innerloop.tasks.supervised import Pooled
from innerloop.training.models import fresh_model, sinusoid_shape
from innerloop.training.optimizers import inner_loop, outer_optimizer


class Keys(NamedTuple):
    """The named keys of a run, split once from its seed."""

    init: PRNGKeyArray
    tasks: PRNGKeyArray


@dataclass(frozen=True)
class Experiment:
    """The parts of one run. `splits` is None for sinusoids, whose sets of tasks differ by key alone."""

    config: Config
    splits: Splits | None = None

    @property
    def classification(self) -> bool:
        """Whether tasks are episodes of classes."""
        return self.config.data.spec.kind == "images"

    def keys(self) -> Keys:
        """The run's keys."""
        return Keys(*jax.random.split(jax.random.key(self.config.seed), 2))

    def init_params(self) -> Params:
        """The meta-parameters before training."""
        shape = self.splits.train.shape if self.splits else sinusoid_shape(self.config)
        outputs = self.classes(self.splits.train).classes if self.splits and self.pretrains else None
        # As one program: the many small ones of a model's layers take seconds to compile.
        draw = eqx.filter_jit(lambda key: self.algorithm.init(fresh_model(self.config, shape, key, outputs)))
        return draw(self.keys().init)

    @property
    def pretrains(self) -> bool:
        """Whether training is ordinary classification of all training classes (the pre-trained baseline)."""
        return self.classification and not self.config.spec.adapts_in_training

    def for_tasks(self, params: Params) -> Params:
        """The parameters that meet held-out tasks: with a new head of `ways` outputs if the old had all classes."""
        if not self.pretrains:
            return params
        head = Linear(params.head.weight.shape[0], self.config.data.ways, key=self.keys().init, scale=0.0)
        return eqx.tree_at(lambda model: model.head, params, head)

    def train_tasks(self) -> TaskDistribution:
        """The distribution that training draws from."""
        data = self.config.data
        shots = data.shots if data.train_shots is None else data.train_shots
        if self.splits is None:
            return Sinusoid(shots, data.queries, data.protocol, data.oracle)
        if self.pretrains:
            return Pooled(self.classes(self.splits.train), data.ways * (shots + data.queries))
        queries = data.queries if self.config.spec.reads_query else 0
        return Episodes(self.classes(self.splits.train), data.ways, shots, queries)

    def held_out_tasks(self, part: str = "test", queries: int | None = None) -> TaskDistribution:
        """Tasks of the validation or test classes (for sinusoids: of the same family)."""
        data = self.config.data
        queries = self.config.evaluation.queries if queries is None else queries
        if self.splits is None:
            return Sinusoid(data.shots, queries, data.protocol, data.oracle)
        classes = self.classes(getattr(self.splits, part))
        check_episode(classes, data.ways, data.shots, queries, who=f"{part} classes")
        return Episodes(classes, data.ways, data.shots, queries)

    def classes(self, arrays: ClassArrays) -> ClassArrays:
        """The classes, turned by quarters where the protocol has it."""
        return with_rotations(arrays) if self.config.data.rotations else arrays

    @property
    def loss_fn(self) -> LossFn:
        """Cross-entropy for episodes, mean squared error for sinusoids."""
        return cross_entropy() if self.classification else mean_squared_error()

    @property
    def chunk(self) -> int | None:
        """Tasks vectorised at a time: convolutions on a CPU are faster one task after the other."""
        conv_on_cpu = self.config.model.kind == "conv4" and jax.default_backend() == "cpu"
        return 1 if self.config.outer.chunk is None and conv_on_cpu else self.config.outer.chunk

    @property
    def algorithm(self) -> Algorithm:
        """The configured algorithm on the configured loss."""
        spec = self.config.spec
        return spec.make(self.loss_fn, inner_loop(self.config.inner, differentiated=spec.second_order))

    @property
    def test_algorithm(self) -> Algorithm:
        """The same with its inner steps at test."""
        e = self.config.evaluation
        return self.algorithm.with_inner(steps=e.steps, minibatch=e.minibatch)

    def score(self, normalization: Normalization | None = None) -> Score:
        """What is measured on a held-out task: accuracy and loss, or loss alone for regression."""
        mode = self.config.evaluation.normalization if normalization is None else normalization

        def scores(params: Params, task: Task) -> dict[str, Array]:
            outputs = predict(call, params, task.support.inputs, task.query.inputs, mode)
            targets = task.query.targets
            if not self.classification:
                return {"loss": squared_error(outputs, targets)}
            return {"accuracy": accuracy(outputs, targets), "loss": softmax_cross_entropy(outputs, targets)}

        return scores

    @property
    def optimizer(self) -> optax.GradientTransformation:
        """The outer optimiser."""
        return outer_optimizer(self.config.outer)

    def outer_loop(self, tasks: Any) -> MeshLoop:
        """The outer loop on what `train_tasks` gave."""
        c = self.config.outer
        mesh = task_mesh(c.meta_batch, model_shards=c.model_shards)
        return OuterLoop(
            self.algorithm, self.optimizer, tasks, meta_batch=c.meta_batch, chunk=self.chunk, mesh=mesh
        )

    def evaluator(
        self, held_out: Any, *, tasks: int, record: Sequence[int] | None = None
    ) -> Callable[[Params, PRNGKeyArray], Iterator[Curve]]:
        """The compiled evaluation on what `held_out_tasks` gave."""
        return evaluator(
            self.test_algorithm,
            held_out,
            self.score(),
            num_tasks=tasks,
            record=record,
            chunk=self.chunk or 50,
            model_shards=self.config.outer.model_shards,
        )

    def series(self, info: Any) -> dict[str, Any]:
        """What is logged besides losses and norm, by name: one value for each meta-step of a dispatch."""
        return {}

    def incidents(self, info: Any, step: int, folder: Path) -> dict[str, Any]:
        """What went wrong in the dispatch that ended at `step` and is only logged: nothing in supervised learning."""
        return {}

    @property
    def environment_steps(self) -> int:
        """Steps of an environment in one meta-step: none outside reinforcement learning."""
        return 0
