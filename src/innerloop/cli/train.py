"""`innerloop train`: meta-train a preset, or resume a run."""

import dataclasses
import shlex
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import tyro
from tyro.conf import arg

from innerloop.cli.common import Devices, console, parse, start_jax
from innerloop.config.bounds import SEED, Bounds
from innerloop.config.data_settings import check_places, check_read, for_dataset
from innerloop.config.presets.registry import all_presets, preset
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
from innerloop.io.digests import sha256
from innerloop.io.files import check_output_folder
from innerloop.io.text import counted
from innerloop.training.signals import Stopped


def _distributed_option(name: str, metavar: str, hint: str = "") -> Any:
    """The settings of an option `--distributed.NAME`."""
    return arg(name=f"distributed.{name}", metavar=metavar, help_behavior_hint=hint)


@dataclass(frozen=True)
class Basics:
    """Meta-train a preset into a run folder, or resume a run.

    Example: innerloop train omniglot-5way-1shot-maml --outer.meta-steps 2000

    Every setting of the preset can be changed: --data.*, --model.*, --inner.*, --outer.*,
    --evaluation.* and, in reinforcement learning, --rl.*. `innerloop train PRESET -H` lists them with the
    preset's values.
    """

    preset: Annotated[str | None, tyro.conf.Positional, arg(metavar="[PRESET]", help_behavior_hint="")] = None
    """The preset; see `innerloop list`."""
    folder: Annotated[Path | None, arg(metavar="DIR", help_behavior_hint="(default: runs/PRESET)")] = None
    """Where to keep the run."""
    resume: Annotated[Path | None, arg(metavar="DIR", help_behavior_hint="")] = None
    """Resume the run in this folder; only its length may change."""
    devices: Devices = None
    """CPU devices to split tasks over."""
    distributed: bool = False
    """Run as one of several processes. Slurm, Open MPI or Kubernetes tell which one; otherwise set the next three
    options, or JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES and JAX_PROCESS_ID."""
    coordinator: Annotated[str | None, _distributed_option("coordinator", "HOST:PORT")] = None
    """Address that the first process listens on."""
    processes: Annotated[int | None, Bounds(1, 100_000), _distributed_option("processes", "N")] = None
    """Number of processes."""
    process: Annotated[int | None, Bounds(0, 100_000), _distributed_option("process", "I")] = None
    """Index of this process, from 0."""
    patience: Annotated[
        int, Bounds(1, 1_000_000), _distributed_option("patience", "SECONDS", "(default: 60)")
    ] = 60
    """Silence after which another process counts as lost."""
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


def run(argv: Sequence[str]) -> int:
    """Run `innerloop train` and return the exit code, 128 plus the signal number if a signal stopped it."""
    if {"-h", "--help"} & set(argv):
        parse(Basics, argv, name="train")
    arguments = _parse_with_preset(argv)
    if arguments.at_once > 1 and arguments.seeds is None:
        raise InnerloopError("--at-once", "needs several seeds", got=arguments.at_once, hint="give --seeds")
    group = (arguments.coordinator, arguments.processes, arguments.process)
    if arguments.distributed or any(value is not None for value in group):
        if arguments.seeds is not None:
            raise InnerloopError("--seeds", "needs a single process", got=arguments.seeds, hint="give --seed")
        return _run_distributed(argv, arguments)
    if arguments.seeds is not None:
        given = any(word == "--seed" or word.startswith("--seed=") for word in argv)
        return _run_seeds(arguments, argv, arguments.seeds, given)
    folder, config = _plan(arguments, argv)
    start_jax(arguments.devices)
    return train_into(folder, config, resume=arguments.resume is not None)


def _run_seeds(arguments: Train, argv: Sequence[str], seeds: str, seed_given: bool) -> int:
    """Train once per seed."""
    from innerloop.cli.seeds import seeds_of, unfinished

    several = seeds_of(seeds)
    if arguments.resume is not None or seed_given:
        hint = "leave out --resume and --seed"
        raise InnerloopError("--seeds", "already determines the runs", got=seeds, hint=hint)
    folder, config = _plan(arguments, argv)
    jobs = unfinished(several, config, folder)
    if arguments.at_once > 1:
        from innerloop.cli.at_once import ParallelRunner

        code = ParallelRunner(jobs, arguments.at_once, arguments.devices, console()).run()
    else:
        start_jax(arguments.devices)
        codes = (train_into(job.folder, job.config, several=True) for job in jobs)
        code = next(filter(None, codes), 0)
    if code == 0:
        folders = shlex.join(str(folder / f"seed-{seed}") for seed in several)
        console().print(f"Compare: innerloop compare {folders}", style="bold")
    return code


def _run_distributed(argv: Sequence[str], arguments: Train) -> int:
    """Train as one of several processes, in a supervised child process."""
    from innerloop.cli import distributed as processes

    folder = arguments.resume or arguments.folder or Path("runs") / str(arguments.preset)
    if not processes.is_child():
        return processes.supervise(argv, folder)
    processes.end_with_parent()
    start_jax(arguments.devices, alone=False)
    from innerloop.parallel import multi_process

    a = arguments
    multi_process.initialize(multi_process.ProcessGroup(a.coordinator, a.processes, a.process, a.patience))

    def work() -> int:
        multi_process.check_same(_settings_digest(arguments), "settings on its command line")
        if not multi_process.is_primary():
            return _train_as_worker(folder)
        # Only the primary reads the run's folder, writes and prints.
        return train_into(*_plan(arguments, argv), resume=arguments.resume is not None)

    return processes.as_one(work, folder)


def _settings_digest(arguments: Train) -> bytes:
    """A digest of the settings that all processes must share; their folders may differ."""
    from innerloop.config.serialization import to_json

    settings = to_json(_with_settings(Config(), arguments))
    shared = f"{arguments.preset} {arguments.resume is not None} {settings}"
    return sha256([shared.encode()])


def _train_as_worker(folder: Path) -> int:
    """Train as any other process: settings and state come from the primary."""
    from innerloop.training.train import train

    try:
        train(None, folder)
    except Stopped as stopped:
        return 128 + stopped.signal_number
    return 0


def _parse_with_preset(argv: Sequence[str]) -> Train:
    """The arguments, whose defaults are the preset's."""
    presets = all_presets()
    named = {word for word in argv if word in presets}
    if len(named) > 1:  # all but one are values of options
        named = {str(_arguments_of(argv, Config(), policies=True).preset)}
    base = presets.get(next(iter(named), ""), Config())
    rl_given = any(word.startswith("--rl.") for word in argv)
    arguments = _arguments_of(argv, base, policies=rl_given)
    if arguments.resume is not None:  # `_resumed` compares with the run's own settings
        return arguments
    dataset = arguments.data.dataset
    if dataset != base.data.dataset:
        # Start from a model that was trained on other data only if asked to.
        model = dataclasses.replace(base.model, start="")
        base = dataclasses.replace(base, model=model, data=for_dataset(base.data, dataset))
    elif not rl_given:
        return arguments
    return _arguments_of(argv, base)


def _arguments_of(argv: Sequence[str], base: Config, *, policies: bool = False) -> Train:
    """The arguments, with the settings of `base` as defaults; `policies`: also take `--rl.*` whatever the base."""
    cls = TrainRL if base.reinforcement or policies else Train
    return parse(cls, argv, cls(**_settings_of(base, cls)), name="train")


def _with_settings(config: Config, arguments: Train) -> Config:
    """The config with the settings of the arguments."""
    return dataclasses.replace(config, **_settings_of(arguments, type(arguments)))


def _settings_of(source: Config | Train, cls: type[Train]) -> dict[str, Any]:
    """The settings of a config, or of arguments, that arguments of this class have."""
    names = {field.name for field in dataclasses.fields(cls)}
    return {f.name: getattr(source, f.name) for f in dataclasses.fields(Config) if f.name in names}


def _plan(arguments: Train, argv: Sequence[str]) -> tuple[Path, Config]:
    """The folder of a run and its config. Raises InnerloopError for conflicting arguments."""
    from innerloop.training.storage.run_directory import RunFolder

    if arguments.resume is not None:
        return arguments.resume, _resumed(arguments.resume, arguments, argv)
    if arguments.preset is None:
        hint = "name one (`innerloop list`), or --resume FOLDER"
        raise InnerloopError("train", "needs a preset", hint=hint)
    config = _with_settings(preset(arguments.preset), arguments)
    _check_inputs(config)
    folder = arguments.folder or Path("runs") / config.name
    check_output_folder(folder)
    if arguments.seeds is None:
        RunFolder(folder).check_new()
    elif (folder / "config.json").exists():
        raise InnerloopError(str(folder), "already holds a run", hint="give another --folder")
    return folder, config


def _check_inputs(config: Config) -> None:
    """Raise InnerloopError for data or a start that are not there; of the data only a table's header is read."""
    data = config.data
    check_read(data)
    check_places(data)
    if data.spec.needs_file:
        from innerloop.tasks.datasets.table import check_columns

        check_columns(data.file, data.columns)
    if config.model.start:
        from innerloop.training.warm_start import WarmStart

        _ = WarmStart(config.model.start).path  # raises an error if there is no such model


def _resumed(folder: Path, arguments: Train, argv: Sequence[str]) -> Config:
    """The config with which the run in a folder continues; only its length may change.

    Raises InnerloopError if `--resume` is given with another preset or setting than the run's, or with `--folder`.
    """
    from innerloop.training.run_length import resumed_config
    from innerloop.training.storage.run_directory import RunFolder
    from innerloop.training.warm_start import absolute

    if not folder.is_dir():
        raise InnerloopError("--resume", "must name an existing folder", got=repr(str(folder)))
    config = RunFolder(folder).config()
    if arguments.folder is not None:
        raise InnerloopError("train", "--resume already names the folder", hint="leave out --folder")
    if arguments.preset not in (None, config.name):
        wrong = f"the run in {folder} is of preset {config.name}"
        raise InnerloopError("--resume", wrong, got=repr(arguments.preset), hint="leave out the preset")
    wanted = absolute(_with_settings(config, _arguments_of(argv, config)))
    given = _flat(wanted)
    for name, value in _flat(config).items():
        if given[name] != value and name != "outer.meta_steps":
            wrong, hint = (
                f"the resumed run keeps its own setting, {value!r}",
                "leave it out, or start a new run",
            )
            raise InnerloopError("--" + name.replace("_", "-"), wrong, got=repr(given[name]), hint=hint)
    check_places(config.data)
    return resumed_config(RunFolder(folder), wanted)


def _flat(config: Config) -> dict[str, object]:
    """All settings of a config by name, such as `outer.meta_steps`."""
    sections = dataclasses.asdict(config)
    return {
        f"{name}.{inner}" if inner else name: value
        for name, section in sections.items()
        for inner, value in (section.items() if isinstance(section, dict) else [("", section)])
    }


def train_into(folder: Path, config: Config | None, *, resume: bool = False, several: bool = False) -> int:
    """Train with a progress display; print where the results are, or how to resume.

    Args:
        folder: the run's folder.
        config: the settings; None resumes the run in the folder with its own.
        resume: whether to resume the run in the folder.
        several: whether the same command trains other runs too.

    Returns:
        The exit code.
    """
    from innerloop.cli.progress import train_until_stopped
    from innerloop.training.memory_plan import MemoryPlan
    from innerloop.training.storage import checkpoint
    from innerloop.training.storage.run_directory import RunFolder
    from innerloop.training.train import train

    out, resume = console(), resume or config is None
    shown = config or RunFolder(folder).config()
    finished = resume and shown == RunFolder(folder).config() and RunFolder(folder).weights.is_file()
    if not finished:
        _announce(shown, folder)
    if not resume and (about_start := _start_in_words(shown)):
        out.print(about_start)
    checkpoint.silence_teardown_errors()

    def tell(stopped: Stopped) -> None:
        how = "Run the same command again to continue." if several else "Resume with:"
        out.print(f"Stopped at meta-step {stopped.step}; everything is saved. {how}")
        if not several:
            out.print(f"  innerloop train --resume {shlex.quote(str(folder))}", style="bold")

    def show_plan(plan: MemoryPlan) -> None:
        if plan.is_news:
            out.print(f"{str(plan)[:1].upper()}{str(plan)[1:]}.")

    show_pictures = lambda path: out.print(f"Pictures: {path} shows what was loaded.")
    work = lambda on_progress: train(
        config,
        folder,
        resume=resume,
        on_progress=on_progress,
        on_plan=show_plan,
        on_pictures=show_pictures,
    )
    code = train_until_stopped(out, shown.title, tell, work)
    if code == 0:
        _print_summary(folder, finished)
    return code


def _announce(config: Config, folder: Path) -> None:
    """Print what is starting and how to stop it."""
    outer = config.outer
    out = console()
    out.print(
        f"{config.title}: {config.algorithm}, {counted(outer.meta_steps, 'meta-step')} of "
        f"{counted(outer.meta_batch, 'task')}, into {folder}"
    )
    out.print("Ctrl-C saves and stops.")


def _start_in_words(config: Config) -> str:
    """What training starts from, if the config or its preset names a trained model."""
    if config.model.start:
        return f"Starts from the trained weights of {config.model.start}, not from random ones."
    own = all_presets().get(config.name)
    if own is None or not own.model.start:
        return ""
    return (
        f"Starts from random weights: {own.model.start}, from which the preset trains for "
        f"{counted(own.outer.meta_steps, 'meta-step')}, was trained on {own.data.spec.title}. Random weights may need "
        f"more (--outer.meta-steps); --model.start {own.model.start} uses the trained weights."
    )


def _print_summary(folder: Path, finished: bool) -> None:
    """Print where the results are, the last validation score, and what to do next."""
    from innerloop.training.progress_words import in_words
    from innerloop.training.storage.run_directory import RunFolder

    run_folder, out = RunFolder(folder), console()
    metrics = run_folder.metrics()
    last = {k: v for record in metrics for k, v in record.items() if k.startswith("validation_")}
    how = "Was already finished" if finished else "Trained"
    out.print(f"{how}: {in_words(last)}." if last else f"{how}.")
    out.print(f"Weights:  {folder / run_folder.weights.name}")
    out.print(f"Metrics:  {folder / 'metrics.jsonl'}, {folder / 'tensorboard'}/")
    out.print(f"Next:     innerloop evaluate {folder}", style="bold")
    out.print(f"          innerloop report {folder}")
