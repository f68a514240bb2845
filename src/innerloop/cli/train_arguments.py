"""The arguments of `innerloop train`, with a preset's settings as defaults."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import tyro
from tyro.conf import arg

from innerloop.cli.common import Devices, parse
from innerloop.config.bounds import SEED, Bounds
from innerloop.config.data_settings import for_dataset
from innerloop.config.presets.registry import all_presets
from innerloop.config.schema import (
    AlgorithmName,
    Config,
    DataConfig,
    EvaluationConfig,
    InnerConfig,
    ModelConfig,
    OuterConfig,
    Precision,
    RLConfig,
)
from innerloop.errors import InnerloopError


def _distributed_option(name: str, metavar: str, hint: str = "") -> Any:
    """The settings of an option `--distributed.NAME`."""
    return arg(name=f"distributed.{name}", metavar=metavar, help_behavior_hint=hint)


@dataclass(frozen=True)
class Basics:
    """Meta-train a preset into a run folder, or resume a run.

    Example: innerloop train omniglot-5way-1shot-maml --outer.meta-steps 2000

    Every setting of the preset (--data.*, --model.*, --inner.*, --outer.*, --evaluation.*, --rl.*) can be changed;
    `innerloop train PRESET -H` lists them.
    """

    preset: Annotated[str | None, tyro.conf.Positional, arg(metavar="[PRESET]", help_behavior_hint="")] = None
    """The preset; see `innerloop list`."""
    folder: Annotated[Path | None, arg(metavar="DIR", help_behavior_hint="(default: runs/PRESET)")] = None
    """Where to keep the run."""
    resume: Annotated[Path | None, arg(metavar="DIR", help_behavior_hint="")] = None
    """Resume the run in this folder; only its length may change."""
    devices: Devices = None
    distributed: bool = False
    """Run as one of several processes. Slurm, Open MPI or Kubernetes tell which one; otherwise give
    --distributed.coordinator, --distributed.processes and --distributed.process, or set JAX_COORDINATOR_ADDRESS,
    JAX_NUM_PROCESSES and JAX_PROCESS_ID."""
    coordinator: Annotated[str | None, _distributed_option("coordinator", "HOST:PORT")] = None
    """Address that the first process listens on."""
    processes: Annotated[int | None, Bounds(1, 100_000), _distributed_option("processes", "N")] = None
    """Number of processes."""
    process: Annotated[int | None, Bounds(0, 100_000), _distributed_option("process", "I")] = None
    """Index of this process, from 0."""
    patience: Annotated[
        int, Bounds(1, 1_000_000), _distributed_option("patience", "SECONDS", "(default: 60)")
    ] = 60
    """Silence after which a process counts as lost."""
    algorithm: Annotated[AlgorithmName, arg(help_behavior_hint="(default: the preset's)")] = "maml"
    """Meta-learning algorithm."""
    seed: Annotated[int, SEED] = 0
    """Seed for the initial weights and the training tasks."""
    seeds: Annotated[str | None, arg(metavar="A..B", help_behavior_hint="")] = None
    """Train once per seed, for example 0..4, into DIR/seed-N."""
    at_once: Annotated[int, Bounds(1, 1000), arg(metavar="N", help_behavior_hint="(default: 1)")] = 1
    """Number of seeds to train at the same time, each in its own process with a share of the machine."""
    precision: Annotated[Precision, arg(help_behavior_hint="(default: the preset's)")] = "float32"
    """Precision of the inputs of matrix products on an accelerator, in training and at test."""


@dataclass(frozen=True)
class Train(Basics):
    """Meta-train a preset into a run folder, or resume a run. Defaults are the preset's."""

    data: DataConfig = field(default_factory=DataConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    inner: InnerConfig = field(default_factory=InnerConfig)
    outer: OuterConfig = field(default_factory=OuterConfig)
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)


@dataclass(frozen=True)
class TrainRL(Train):
    """`Train` with the settings of reinforcement learning."""

    rl: RLConfig = field(default_factory=RLConfig)


def parse_with_preset(argv: Sequence[str]) -> Train:
    """The arguments, whose defaults are the preset's."""
    presets = all_presets()
    named = {word for word in argv if word in presets}
    if len(named) > 1:  # all but one are values of options
        named = {str(arguments_of(argv, Config(), policies=True).preset)}
    base = presets.get(next(iter(named), ""), Config())
    rl_given = any(word.startswith("--rl.") for word in argv)
    arguments = arguments_of(argv, base, policies=rl_given)
    # For a resumed run, `train_plan` compares the arguments with the run's own settings.
    if arguments.resume is not None or arguments.preset is None:
        return arguments
    dataset = arguments.data.dataset
    if dataset != base.data.dataset:
        # Start from a model that was trained on other data only if asked to.
        model = dataclasses.replace(base.model, start="")
        base = dataclasses.replace(base, model=model, data=for_dataset(base.data, dataset))
    elif not rl_given:
        return arguments
    return arguments_of(argv, base)


def arguments_of(argv: Sequence[str], base: Config, *, policies: bool = False) -> Train:
    """The arguments, with the settings of `base` as defaults; `policies`: also take `--rl.*` whatever the base."""
    cls = TrainRL if base.reinforcement or policies else Train
    if cls is Train and (given := next((word for word in argv if word.startswith("--rl.")), "")):
        hint = "leave it out, or name a preset such as navigation-maml-trpo"
        raise InnerloopError(given.partition("=")[0], "is a setting of reinforcement learning", hint=hint)
    return parse(cls, argv, cls(**settings_of(base, cls)), name="train")


def with_settings(config: Config, arguments: Train) -> Config:
    """The config with the settings of the arguments."""
    return dataclasses.replace(config, **settings_of(arguments, type(arguments)))


def settings_of(source: Config | Train, cls: type[Train]) -> dict[str, Any]:
    """The settings of a config, or of arguments, that arguments of this class have."""
    names = {field.name for field in dataclasses.fields(cls)}
    return {f.name: getattr(source, f.name) for f in dataclasses.fields(Config) if f.name in names}
