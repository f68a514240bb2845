"""From a config to the parts of a run: data, model, loss, algorithm, optimisers."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import equinox as eqx
import jax
import optax
from jaxtyping import Array, PRNGKeyArray

from innerloop import algorithms
from innerloop.algorithms.algorithm import Algorithm
from innerloop.config import REINFORCEMENT, Config, InnerConfig, Normalization
from innerloop.datasets.arrays import ClassArrays, Splits
from innerloop.errors import InnerloopError
from innerloop.evaluate import Curve, Score, evaluator
from innerloop.inner import InnerLoop
from innerloop.kept_adam import with_moments
from innerloop.losses import (
    accuracy,
    call,
    cross_entropy,
    mean_squared_error,
    softmax_cross_entropy,
    squared_error,
)
from innerloop.mesh import task_mesh
from innerloop.models import MLP, Conv4
from innerloop.models.layers import Linear
from innerloop.normalization import predict
from innerloop.optimizers import inner_loop, outer_optimizer
from innerloop.outer import MetaState, meta_steps
from innerloop.task import LossFn, Params, Task, TaskDistribution
from innerloop.tasks.episodes import Episodes, check_episode, with_rotations
from innerloop.tasks.pooled import Pooled
from innerloop.tasks.sinusoid import Sinusoid
from innerloop.tree import Except, Selection


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
        return self.splits is not None

    @property
    def reinforcement(self) -> bool:
        """Whether tasks are environments to act in."""
        return self.config.data.dataset in REINFORCEMENT

    def keys(self) -> Keys:
        """The run's keys."""
        return Keys(*jax.random.split(jax.random.key(self.config.seed), 2))

    def init_params(self) -> Params:
        """The model before training."""
        shape = self.splits.train.shape if self.splits else sinusoid_shape(self.config)
        outputs = self.classes(self.splits.train).classes if self.splits and self.pretrains else None
        # As one program: the many small ones of a model's layers take seconds to compile.
        draw = eqx.filter_jit(lambda key: fresh_model(self.config, shape, key, outputs))
        return draw(self.keys().init)

    @property
    def pretrains(self) -> bool:
        """Whether training is ordinary classification of all training classes (the pre-trained baseline)."""
        return self.classification and self.config.algorithm == "joint"

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
        queries = 0 if self.config.algorithm == "reptile" else data.queries
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
        return getattr(algorithms, self.config.algorithm)(self.loss_fn, self.inner(self.config.inner))

    def inner(self, c: InnerConfig) -> InnerLoop:
        """The inner loop of these settings, fit to be differentiated where the algorithm does that."""
        return inner_loop(c, differentiated=self.config.algorithm in ("maml", "anil", "boil"))

    @property
    def test_inner(self) -> InnerLoop:
        """The inner loop at test: more steps, and what the algorithm moves."""
        e = self.config.evaluation
        inner = self.inner(replace(self.config.inner, steps=e.steps, minibatch=e.minibatch))
        return replace(inner, select=adapted_by(self.config.algorithm))

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

    def meta_steps(self, tasks: Any, length: int) -> Callable[[MetaState], tuple[MetaState, Any]]:
        """The compiled run of `length` meta-steps on what `train_tasks` gave."""
        c = self.config.outer
        return meta_steps(
            self.algorithm,
            self.optimizer,
            tasks,
            meta_batch=c.meta_batch,
            steps=length,
            chunk=self.chunk,
            mesh=task_mesh(c.meta_batch, parts=c.parts),
        )

    def evaluator(
        self, held_out: Any, *, tasks: int, record: Sequence[int] | None = None
    ) -> Callable[[Params, PRNGKeyArray], Iterator[Curve]]:
        """The compiled evaluation on what `held_out_tasks` gave."""
        settings = {
            "tasks": tasks,
            "record": record,
            "chunk": self.chunk or 50,
            "parts": self.config.outer.parts,
        }
        return evaluator(self.score(), self.loss_fn, self.test_inner, held_out, **settings)

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


def sinusoid_shape(config: Config) -> tuple[int]:
    """Shape of one input of the sinusoids."""
    return (3,) if config.data.oracle else (1,)


def fresh_model(
    config: Config, shape: tuple[int, ...], key: PRNGKeyArray, outputs: int | None = None
) -> Params:
    """The configured model before training, for examples of `shape` (`outputs`: other than one per way)."""
    model = network(config, shape, key, outputs)
    return with_moments(model) if config.inner.optimizer == "kept_adam" else model


def network(config: Config, shape: tuple[int, ...], key: PRNGKeyArray, outputs: int | None) -> Params:
    """The network alone."""
    m = config.model
    if outputs is None:
        outputs = 1 if config.data.dataset == "sinusoid" else config.data.ways
    if m.kind == "mlp":
        return MLP(
            math.prod(shape),
            outputs,
            hidden=m.hidden,
            activation=m.activation,
            normalize=m.normalize,
            scale=m.scale,
            key=key,
        )
    if len(shape) != 3:
        raise InnerloopError("model", "`conv4` needs images", got=f"inputs of shape {shape}", do="use `mlp`")
    return Conv4(
        outputs,
        image_shape=shape,
        filters=m.filters,
        downsample=m.downsample,
        features=m.features,
        key=key,
    )


def adapted_by(algorithm: str) -> Selection:
    """What each algorithm's inner loop moves."""
    if algorithm == "anil":
        return "head"
    return Except("head") if algorithm == "boil" else None


def load_splits(config: Config) -> Splits | None:
    """Read the configured data set (None for sinusoids)."""
    from innerloop.datasets import cifar, folder, glyphs, mini_imagenet, omniglot

    data = config.data
    if data.dataset == "sinusoid":
        return None
    if data.dataset == "omniglot":
        return omniglot.load(data.split or "maml")  # pyright: ignore[reportArgumentType]
    if data.dataset in ("cifar_fs", "fc100"):
        return cifar.load(data.dataset)
    if data.dataset == "glyphs":
        return glyphs.load()
    if not data.folder:
        raise InnerloopError(data.dataset, "needs a folder of images", do="give --data.folder PATH")
    if data.dataset == "mini_imagenet":
        return mini_imagenet.load(data.folder)
    return folder.load(data.folder, size=data.size or None)


def check_inner(config: Config) -> None:
    """Raise InnerloopError where moments that tasks hand on would be differentiated, or held by a policy."""
    fits = config.algorithm == "reptile" and config.data.dataset not in REINFORCEMENT
    if config.inner.optimizer == "kept_adam" and not fits:
        raise InnerloopError(
            "--inner.optimizer",
            "`kept_adam` is for Reptile on examples",
            got=f"{config.algorithm} on {config.data.dataset}",
            do="choose sgd or adam",
        )


def build(config: Config) -> Experiment:
    """Load the data and check that the parts fit together."""
    check_inner(config)
    if config.data.dataset in REINFORCEMENT:
        from innerloop.rl.experiment import RLExperiment, check_policy  # it builds on this module

        check_policy(config)
        if config.outer.parts > 1:
            raise InnerloopError(
                "--outer.parts", "policies are whole on every device", got=config.outer.parts
            )
        return RLExperiment(config)
    return Experiment(config, load_splits(config))
