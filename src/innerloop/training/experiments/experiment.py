"""The base classes of runs: the training loop needs only a `Trainable`, and an `Experiment` is one with a config."""

import zlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple

import jax
from jaxtyping import PRNGKeyArray, PyTree

from innerloop.config.schema import Config
from innerloop.engine.algorithm import Algorithm
from innerloop.engine.evaluation.curve import Curve
from innerloop.engine.meta_state import MetaState
from innerloop.engine.outer.mesh_loop import MeshLoop
from innerloop.engine.pytree import by_path
from innerloop.engine.types import Params
from innerloop.io.untrusted import JsonObject
from innerloop.training.diagnosis import nan_diagnosis
from innerloop.training.diagnosis.nan_diagnosis import Block
from innerloop.training.experiments.schedule import Schedule

Evaluator = Callable[[Params, PRNGKeyArray], Iterator[Curve]]
"""`run(params, key)` yields the curves of held-out tasks, batch by batch."""


class Keys(NamedTuple):
    """The named keys of a run, all derived from its seed."""

    init: PRNGKeyArray
    tasks: PRNGKeyArray


Split = Literal["test", "validation", "train"]
"""One of the three sets of classes, or of groups of a table."""


def held_out_key(seed: int, split: str) -> PRNGKeyArray:
    """The key of the tasks of one set: `test`, `validation` or `train`.

    Sets without classes (sinusoids, environments) differ only by their keys, so the name of the set is folded in. The
    test set uses the key of the seed itself, so that earlier measurements stay valid.
    """
    key = jax.random.key(seed)
    return key if split == "test" else jax.random.fold_in(key, zlib.crc32(split.encode()))


class Trainable(ABC):
    """The parts of one run."""

    CALLER = nan_diagnosis.COMMAND  # who reports a divergence

    schedule: Schedule
    """When the run logs, validates, saves and ends."""

    @property
    @abstractmethod
    def meta_batch(self) -> int:
        """The number of tasks of one meta-step."""

    def work(self) -> dict[str, int]:
        """What one meta-step consumes: the number of `tasks`, and anything else to report per second."""
        return {"tasks": self.meta_batch}

    @abstractmethod
    def keys(self) -> Keys:
        """The run's keys."""

    @abstractmethod
    def init_params(self) -> Params:
        """The meta-parameters before training."""

    def for_tasks(self, params: Params) -> Params:
        """The parameters to evaluate on held-out tasks: these meta-parameters, unless overridden."""
        return params

    @abstractmethod
    def held_out_tasks(self, split: str = "test") -> Any:
        """The distribution of the tasks of a split."""

    @abstractmethod
    def outer_loop(self) -> MeshLoop:
        """The outer loop on the training tasks."""

    def start(self, loop: MeshLoop, params: Params) -> MetaState:
        """The state before the first meta-step, from meta-parameters."""
        return loop.start(params, self.keys().tasks)

    @abstractmethod
    def evaluator(self, held_out: object, *, num_tasks: int, last_only: bool = False) -> Evaluator:
        """The compiled evaluation on the result of `held_out_tasks`.

        `last_only`: only the scores before the first and after the last inner step are needed.
        """

    def series(self, info: PyTree) -> dict[str, PyTree]:
        """The logged values of a dispatch, by name: one for each meta-step.

        These are losses, the meta-gradient norm and, as `train_NAME`, scalar auxiliary outputs of the loss.
        """
        first = {"inner_loss_first": info.inner_losses[:, 0]} if info.inner_losses.shape[1] else {}
        aux = by_path(getattr(info, "aux", None))
        numbers = {f"train_{name}": values for name, values in aux.items() if values.ndim == 1}
        return {"outer_loss": info.outer_loss, "grad_norm": info.grad_norm, **first, **numbers}

    def check(self, info: PyTree, block: Block) -> JsonObject:
        """The incidents in a block, which are only logged: none, unless overridden.

        Raises Diverged if a loss, gradient or parameter is not finite.
        """
        nan_diagnosis.check_finite(info, block, self.CALLER)
        return {}


@dataclass(frozen=True)
class Experiment(Trainable):
    """The parts of one run, built from its config."""

    config: Config

    @property
    @abstractmethod
    def test_algorithm(self) -> Algorithm:
        """The algorithm with its inner loop at test."""

    @property
    def schedule(self) -> Schedule:  # pyright: ignore[reportIncompatibleVariableOverride]
        """The config's schedule."""
        return Schedule.from_config(self.config)

    def keys(self) -> Keys:
        """The keys that the config's seed is split into."""
        return Keys(*jax.random.split(jax.random.key(self.config.seed), 2))

    def with_config(self, config: Config) -> "Experiment":
        """The same data with other settings."""
        return replace(self, config=config)

    def data_hashes(self) -> dict[str, str]:
        """SHA-256 of each set of the data, by name; empty for tasks generated from formulas."""
        return {}

    @property
    def meta_batch(self) -> int:
        """The number of tasks of one meta-step."""
        return self.config.outer.meta_batch
