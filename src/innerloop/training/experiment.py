"""The interface and base class of experiments, shared by supervised and reinforcement learning.

The training loop needs only the parts of a run, a `Trainable`. An `Experiment` is a `Trainable` with a config.
"""

import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax
from jaxtyping import PRNGKeyArray, PyTree

from innerloop.config.schema import Config
from innerloop.engine.curve import Curve
from innerloop.engine.mesh_loop import MeshLoop
from innerloop.engine.pytree import by_path
from innerloop.engine.types import Params
from innerloop.io.untrusted import JsonObject
from innerloop.training import nan_diagnosis
from innerloop.training.nan_diagnosis import Block
from innerloop.training.schedule import Schedule

Evaluator = Callable[[Params, PRNGKeyArray], Iterator[Curve]]
"""`run(params, key)` yields the curves of held-out tasks, batch by batch."""


class Keys(NamedTuple):
    """The named keys of a run, all split from its seed."""

    init: PRNGKeyArray
    tasks: PRNGKeyArray

    @classmethod
    def of(cls, config: Config) -> "Keys":
        """The keys of a config's seed."""
        return cls(*jax.random.split(jax.random.key(config.seed), 2))


def held_out_key(seed: int, part: str) -> PRNGKeyArray:
    """The key of the tasks of one set: `test`, `validation` or `train`.

    Sets without classes (sinusoids, environments) differ only by their keys, so the name of the set is folded in. The
    test set uses the key of the seed itself, so that earlier measurements stay valid.
    """
    key = jax.random.key(seed)
    return key if part == "test" else jax.random.fold_in(key, zlib.crc32(part.encode()))


@runtime_checkable
class Trainable(Protocol):
    """The parts of one run."""

    @property
    def schedule(self) -> Schedule:
        """When the run logs, validates, saves and ends."""
        ...

    def work(self) -> dict[str, int]:
        """What one meta-step consumes: the number of `tasks`, and anything else to report per second."""
        ...

    def keys(self) -> Keys:
        """The run's keys."""
        ...

    def init_params(self) -> Params:
        """The meta-parameters before training."""
        ...

    def for_tasks(self, params: Params) -> Params:
        """The parameters to evaluate on held-out tasks."""
        ...

    def train_tasks(self) -> Any:
        """The distribution of training tasks."""
        ...

    def held_out_tasks(self, part: str = "test") -> Any:
        """The distribution of validation or test tasks."""
        ...

    def outer_loop(self, tasks: object) -> MeshLoop:
        """The outer loop on the result of `train_tasks`."""
        ...

    def evaluator(self, held_out: object, *, tasks: int, last_only: bool = False) -> Evaluator:
        """The compiled evaluation on the result of `held_out_tasks`.

        `last_only`: only the scores before the first and after the last inner step are needed.
        """
        ...

    def series(self, info: PyTree) -> dict[str, PyTree]:
        """The logged values of a dispatch, by name: one for each meta-step."""
        ...

    def check(self, info: PyTree, block: Block) -> JsonObject:
        """The incidents in a block, which are only logged. Raises InnerloopError if the run diverged."""
        ...


@dataclass(frozen=True)
class Experiment(Trainable):
    """The parts of one run, built from its config."""

    config: Config

    @property
    def schedule(self) -> Schedule:
        """The config's schedule."""
        return Schedule.from_config(self.config)

    def keys(self) -> Keys:
        """The keys of the config's seed."""
        return Keys.of(self.config)

    def with_config(self, config: Config) -> "Experiment":
        """The same data with other settings."""
        return replace(self, config=config)

    def data_hashes(self) -> dict[str, str]:
        """SHA-256 of each set of the data, by name; empty for tasks generated from formulas."""
        return {}

    def work(self) -> dict[str, int]:
        """The number of tasks of one meta-step."""
        return {"tasks": self.config.outer.meta_batch}

    def for_tasks(self, params: Params) -> Params:
        """The meta-parameters, unchanged."""
        return params

    def series(self, info: PyTree) -> dict[str, PyTree]:
        """Losses, the meta-gradient norm, and auxiliary outputs of the loss."""
        return outer_series(info)

    def check(self, info: PyTree, block: Block) -> JsonObject:
        """No incidents. Raises InnerloopError if a loss, gradient or parameter is not finite."""
        nan_diagnosis.check_finite(info, block)
        return {}


def outer_series(info: PyTree) -> dict[str, PyTree]:
    """The `series` of every outer loop; auxiliary outputs of the loss are included as `train_NAME` if scalar."""
    first = {"inner_loss_first": info.inner_losses[:, 0]} if info.inner_losses.shape[1] else {}
    aux = getattr(info, "aux", None)
    numbers = {f"train_{name}": values for name, values in by_path(aux).items() if values.ndim == 1}
    return {"outer_loss": info.outer_loss, "grad_norm": info.grad_norm, **first, **numbers}
