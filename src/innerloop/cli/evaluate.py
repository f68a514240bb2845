"""`innerloop evaluate`: the adaptation curve of a trained initialisation on held-out tasks."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Literal, get_args

from tyro.conf import arg

from innerloop.cli.common import (
    OWN,
    Count,
    DataFolder,
    Devices,
    Source,
    Steps,
    console,
    parse,
    print_json,
    start_jax,
)
from innerloop.cli.tables import new_table
from innerloop.config.bounds import COUNTS, TASKS, TEST_SEED
from innerloop.config.schema import Config, Normalization
from innerloop.errors import InnerloopError
from innerloop.io.text import broken, counted, diverged, grouped, with_interval
from innerloop.io.untrusted import JsonObject

if TYPE_CHECKING:
    from innerloop.training.measurement import Measurement, ReturnMeasurement, ScoreMeasurement
    from innerloop.training.trained import Trained


@dataclass(frozen=True)
class Evaluate:
    """Measure a trained initialisation on held-out tasks: the mean after each inner step with its 95 % interval.

    Example: innerloop evaluate runs/omniglot-5way-1shot-maml --tasks 1000
    """

    source: Source
    tasks: Annotated[Count, TASKS] = None
    """Held-out tasks; all of them if there are fewer (groups of a table)."""
    steps: Steps = None
    shots: Annotated[Count, COUNTS] = None
    """Support examples per class (sinusoids and tables: per task)."""
    queries: Annotated[Count, COUNTS] = None
    """Query examples per class (sinusoids: per task; tables: at most this many)."""
    normalization: Annotated[
        Literal["transductive", "inductive", "support", "all"] | None,
        arg(metavar="{transductive,inductive,support,all}", help_behavior_hint=OWN),
    ] = None
    """Batch that provides a query's normalisation statistics: all queries of the task (transductive), the query with
    the support set (inductive), or the support set alone (support); all: each in turn."""
    rotations: Annotated[Literal["yes", "no"] | None, arg(metavar="{yes,no}", help_behavior_hint=OWN)] = None
    """Whether held-out classes are rotated, if training classes are (Omniglot)."""
    split: Literal["test", "validation", "train"] = "test"
    """The split to measure on: of the classes, or of the groups of a table."""
    seed: Annotated[int, TEST_SEED] = 0
    """Seed for drawing the tasks."""
    data_folder: DataFolder = ""
    """Where the images are (data sets `folder` and `mini_imagenet`), or the table."""
    devices: Devices = None
    json: bool = False
    """Print one JSON object and nothing else."""


def run(argv: Sequence[str]) -> int:
    """Run `innerloop evaluate` and return the exit code."""
    arguments = parse(Evaluate, argv)
    start_jax(arguments.devices)
    from innerloop.training.trained import load_trained

    trained = load_trained(arguments.source, data_folder=arguments.data_folder)
    for name in ("shots", "queries") if trained.config.reinforcement else ():
        if (given := getattr(arguments, name)) is not None:
            wrong = "policies learn from trajectories"
            raise InnerloopError(f"--{name}", wrong, got=given, hint="leave it out")
    if arguments.rotations is not None and not trained.config.data.rotations:
        hint = "leave it out"
        raise InnerloopError("--rotations", "its classes are not rotated in training either", hint=hint)
    modes = _modes(trained, arguments)
    found: dict[Normalization, Measurement] = {mode: _measured(trained, arguments, mode) for mode in modes}
    if arguments.json:
        print_json(_merged(found))
    else:
        _show(found, trained.config)
    return 0


def _modes(trained: "Trained", arguments: Evaluate) -> list[Normalization]:
    """The normalisation modes to measure; with `all`, the run's own comes first."""
    own = trained.config.evaluation.normalization
    if arguments.normalization is not None and not trained.config.model.normalizes:
        wrong = "the network has no batch normalisation"
        raise InnerloopError("--normalization", wrong, got=arguments.normalization, hint="leave it out")
    if arguments.normalization == "all":
        return sorted(get_args(Normalization), key=lambda mode: mode != own)
    return [arguments.normalization or own]


def _measured(trained: "Trained", arguments: Evaluate, mode: Normalization) -> "Measurement":
    """One measurement, with a progress bar if stderr is a terminal."""
    from innerloop.cli.progress import counting
    from innerloop.training.measure import measure

    settings = {name: getattr(arguments, name) for name in ("steps", "shots", "queries", "seed", "split")}
    settings["num_tasks"] = arguments.tasks
    settings["rotations"] = None if arguments.rotations is None else arguments.rotations == "yes"
    err = console(stderr=True)
    if not err.is_terminal:
        return measure(trained, normalization=mode, **settings)
    how = f", {mode}" if trained.config.model.normalizes else ""
    with counting(err, trained.config.name + how) as on_progress:
        return measure(trained, normalization=mode, on_progress=on_progress, **settings)


def _merged(found: "dict[Normalization, Measurement]") -> JsonObject:
    """The record of the first mode; with several modes, it holds all of them under `modes`."""
    records = {mode: measurement.to_json() for mode, measurement in found.items()}
    first = next(iter(records.values()))
    return first | {"modes": records} if len(records) > 1 else first


def _show(found: "dict[Normalization, Measurement]", config: Config) -> None:
    """Print the adaptation curve as a table with one column per mode, and the conditions of the measurement."""
    out, first, several = console(), next(iter(found.values())), len(found) > 1
    headings = [f"{m.score}, {mode}" if several else m.score for mode, m in found.items()]
    at = lambda i: (with_interval(m.curve.mean[i], m.curve.ci95[i], m.score) for m in found.values())
    rows = ((str(step), *at(i)) for i, step in enumerate(first.steps))
    out.print(f"{first.source}: {_title(first)}")
    out.print(new_table("updates" if config.reinforcement else "inner steps", *headings, rows=rows))
    out.print("; ".join(_conditions(first, list(found), config)) + ".")
    if words := broken(first.broken_trajectories):
        out.print(f"{words}.", style="bold")
    for mode, m in found.items():
        if words := diverged(m.diverged_tasks, m.tasks):
            out.print(f"{mode}: {words}." if several else f"{words}.", style="bold")


def _title(found: "Measurement") -> str:
    """What was learned, in words."""
    from innerloop.training.measurement import ScoreMeasurement

    if not isinstance(found, ScoreMeasurement):
        return f"{found.algorithm}, undiscounted return"
    if found.ways is None:
        maximum = "at most " if found.groups else ""  # smaller groups give all rows but one
        return f"{found.algorithm}, {maximum}{counted(found.shots, 'shot')}, mean squared error"
    return f"{found.algorithm}, {found.ways}-way {found.shots}-shot"


def _conditions(found: "Measurement", modes: Sequence[Normalization], config: Config) -> list[str]:
    """Everything that the numbers depend on, in words; measurements in other modes differ only in the mode."""
    from innerloop.training.measurement import ReturnMeasurement, ScoreMeasurement
    from innerloop.training.progress.progress_words import duration

    words = [f"Mean ± 95 % interval over {_tasks(found)}"]
    if isinstance(found, ReturnMeasurement):
        words += _sampling(found)
    if isinstance(found, ScoreMeasurement):
        if found.normalization is not None:
            words.append(f"normalisation {', '.join(modes)}")
        words += _queries(found)
    words.append(f"seed {found.seed}")
    if found.precision != "float32":
        words.append(f"products in {found.precision}")
    if found.trained_meta_steps is not None:
        unit = "meta-iteration" if config.reinforcement else "meta-step"
        words.append(f"trained for {counted(found.trained_meta_steps, unit)}")
    return [*words, f"took {duration(found.seconds)}"]


def _tasks(found: "Measurement") -> str:
    """The number of tasks, and for a table how many there are in all."""
    groups = getattr(found, "groups", None)
    if groups is None:
        return counted(found.tasks, f"{found.classes} task")
    some = "all" if found.tasks == groups else f"{grouped(found.tasks)} of"
    return f"{some} {counted(groups, f'{found.classes} group')} of the table"


def _sampling(found: "ReturnMeasurement") -> list[str]:
    """How a policy was sampled, rewarded and updated."""
    trajectories = counted(found.trajectories, "trajectory", "trajectories")
    restarts = ", more where they end early" if found.restarts else ""
    return [
        f"{trajectories} of {counted(found.horizon, 'step')} each{restarts}",
        f"reward {found.reward}",
        f"step size {found.inner_learning_rate:g}, then {found.later_learning_rate:g}",
    ]


def _queries(found: "ScoreMeasurement") -> list[str]:
    """The queries of a task, and the unit of their score or the rotation of their classes."""
    queries = counted(found.queries, "query", "queries")
    if found.groups:
        return [f"at most {queries}", "unit: the variance of y over the training rows"]
    if found.ways is None:
        return [queries]
    rotated = "rotated" if found.rotations else "upright"
    return [f"{queries} per class"] + ([] if found.rotations is None else [f"classes {rotated}"])
