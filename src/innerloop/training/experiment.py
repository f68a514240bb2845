"""What a run, a measurement and an analysis need of an experiment, whatever its tasks are learnt from.

The training loop needs the parts of a run alone, a `Trainable`. An `Experiment` is one that a config describes.
"""

import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax
from jaxtyping import PRNGKeyArray, PyTree

from innerloop.config.schema import Config
from innerloop.engine.evaluate import Curve
from innerloop.engine.outer import MeshLoop, MetaState
from innerloop.engine.pytree import paths
from innerloop.engine.types import FiniteTasks, Params
from innerloop.io.untrusted import JsonObject
from innerloop.training.schedule import Schedule

Evaluator = Callable[[Params, PRNGKeyArray], Iterator[Curve]]
"""`run(params, key)`: curves of one batch of held-out tasks after the other."""


class Keys(NamedTuple):
    """The named keys of a run, split once from its seed."""

    init: PRNGKeyArray
    tasks: PRNGKeyArray

    @classmethod
    def of(cls, config: Config) -> "Keys":
        """The keys of a config's seed."""
        return cls(*jax.random.split(jax.random.key(config.seed), 2))


def held_out_key(seed: int, part: str) -> PRNGKeyArray:
    """The key of the tasks of one set, `test`, `validation` or `train`.

    Sets without classes (sinusoids, environments) differ by their keys alone, so the name of the set is folded in. The
    key of the test set is that of the seed: numbers that were measured with it stay what they are.
    """
    key = jax.random.key(seed)
    return key if part == "test" else jax.random.fold_in(key, zlib.crc32(part.encode()))


class Block(NamedTuple):
    """The meta-steps of one dispatch: the state before them (on the host), how they ran, and where the run lies."""

    before: MetaState
    run: Callable[[MetaState, int], tuple[MetaState, PyTree]]
    tasks: Any
    step: int
    """The last of them."""
    folder: Path
    after: Params = None
    """The meta-parameters after them."""


@runtime_checkable
class Trainable(Protocol):
    """The parts of one run."""

    @property
    def schedule(self) -> Schedule:
        """When it logs, validates, saves and ends."""
        ...

    def work(self) -> dict[str, int]:
        """What one meta-step consumes: `tasks`, and what else is worth counting by the second."""
        ...

    def keys(self) -> Keys:
        """The run's keys."""
        ...

    def init_params(self) -> Params:
        """The meta-parameters before training."""
        ...

    def for_tasks(self, params: Params) -> Params:
        """The parameters that meet held-out tasks."""
        ...

    def train_tasks(self) -> Any:
        """What training draws its tasks from."""
        ...

    def held_out_tasks(self, part: str = "test") -> Any:
        """What validation or test draws its tasks from."""
        ...

    def outer_loop(self, tasks: object) -> MeshLoop:
        """The outer loop on what `train_tasks` gave."""
        ...

    def evaluator(self, held_out: object, *, tasks: int, last_only: bool = False) -> Evaluator:
        """The compiled evaluation on what `held_out_tasks` gave.

        `last_only`: scores before the first inner step and after the last are enough.
        """
        ...

    def series(self, info: PyTree) -> dict[str, PyTree]:
        """What is logged of a dispatch, by name: one value for each meta-step."""
        ...

    def check(self, info: PyTree, block: Block) -> JsonObject:
        """What went wrong in a block and is only logged. Raises InnerloopError for a run that diverged."""
        ...


@runtime_checkable
class Experiment(Trainable, Protocol):
    """The parts of one run, as its config describes them."""

    @property
    def config(self) -> Config:
        """What describes it."""
        ...

    def with_config(self, config: Config) -> "Experiment":
        """The same data with other settings."""
        ...

    def data_hashes(self) -> dict[str, str]:
        """SHA-256 of each set of the data, by its name; none for tasks that are drawn from formulas."""
        ...


def number_of_tasks(held_out: object, most: int) -> int:
    """How many held-out tasks are measured: as many as asked for, or all where there are not so many."""
    return min(most, len(held_out)) if isinstance(held_out, FiniteTasks) else most


def outer_series(info: PyTree) -> dict[str, PyTree]:
    """The part of `series` that every outer loop has; auxiliary outputs of the loss as `train_NAME`, if numbers."""
    first = {"inner_loss_first": info.inner_losses[:, 0]} if info.inner_losses.shape[1] else {}
    aux = getattr(info, "aux", None)
    told = zip(paths(aux), jax.tree.leaves(aux), strict=True)
    numbers = {f"train_{name}": values for name, values in told if values.ndim == 1}
    return {"outer_loss": info.outer_loss, "grad_norm": info.grad_norm, **first, **numbers}
