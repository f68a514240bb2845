"""`innerloop evaluate`: the adaptation curve of a trained initialisation on held-out tasks."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Literal, get_args

import tyro
from tyro.conf import arg

from innerloop.cli.common import OWN, Count, Devices, Steps, console, new_table, parse, print_json, start_jax
from innerloop.config.bounds import COUNTS, TASKS, TEST_SEED
from innerloop.config.schema import Config, Normalization
from innerloop.errors import InnerloopError
from innerloop.io.text import broken, counted, diverged, with_interval
from innerloop.io.untrusted import JsonObject

if TYPE_CHECKING:
    import innerloop.training.measurement
    import innerloop.training.storage.sources
    import innerloop.training.trained


@dataclass(frozen=True)
class Evaluate:
    """Measure a trained initialisation on held-out tasks: the mean after each inner step with its 95 % interval.

    Example: innerloop evaluate runs/omniglot-5way-1shot-maml --tasks 1000
    """

    source: Annotated[str, tyro.conf.Positional, arg(metavar="SOURCE")]
    """A run's folder, a weights file, or a preset with bundled weights."""
    tasks: Annotated[Count, TASKS] = None
    """Held-out tasks."""
    steps: Steps = None
    """Inner steps."""
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
    part: Literal["test", "validation", "train"] = "test"
    """Split of the classes to measure on."""
    seed: Annotated[int, TEST_SEED] = 0
    """Seed for drawing the tasks."""
    data_folder: Annotated[str, arg(metavar="DIR", help_behavior_hint="(default: as trained)")] = ""
    """Where the images are (data sets `folder` and `mini_imagenet`), or the table."""
    devices: Devices = None
    """CPU devices to split tasks over."""
    json: bool = False
    """Print one JSON object and nothing else."""


def run(argv: Sequence[str]) -> int:
    """Run `innerloop evaluate` and return the exit code."""
    arguments = parse(Evaluate, argv)
    start_jax(arguments.devices)
    from innerloop.training.trained import load_trained

    trained = load_trained(arguments.source, data_folder=arguments.data_folder)
    if trained.config.reinforcement:
        _refuse_examples(arguments)
    if arguments.rotations is not None and not trained.config.data.rotations:
        hint = "leave it out"
        raise InnerloopError("--rotations", "its classes are not rotated in training either", hint=hint)
    found = [_measured(trained, arguments, mode) for mode in _modes(trained, arguments)]
    if arguments.json:
        print_json(_merged(found))
    else:
        _show(found, trained.config)
    return 0


def _refuse_examples(arguments: Evaluate) -> None:
    """Raise InnerloopError if numbers of examples are given, which do not apply to policies."""
    for name in ("shots", "queries"):
        value = getattr(arguments, name)
        if value is not None:
            raise InnerloopError(
                f"--{name}", "policies learn from trajectories", got=value, hint="leave it out"
            )


def _modes(trained: "innerloop.training.trained.Trained", arguments: Evaluate) -> list[Normalization]:
    """The normalisation modes to measure; with `all`, the run's own comes first."""
    own = trained.config.evaluation.normalization
    if trained.config.reinforcement:
        if arguments.normalization is not None:
            raise InnerloopError("--normalization", "does not apply to policies", hint="leave it out")
        return [own]
    if arguments.normalization == "all":
        return sorted(get_args(Normalization), key=lambda mode: mode != own)
    return [arguments.normalization or own]


def _measured(
    trained: "innerloop.training.trained.Trained", arguments: Evaluate, mode: Normalization
) -> "innerloop.training.measurement.Measurement":
    """One measurement, with a progress bar if stderr is a terminal."""
    from innerloop.cli.progress import counting
    from innerloop.training.measure import measure

    settings = {
        name: getattr(arguments, name) for name in ("tasks", "steps", "shots", "queries", "seed", "part")
    }
    settings["rotations"] = None if arguments.rotations is None else arguments.rotations == "yes"
    err = console(stderr=True)
    if not err.is_terminal:
        return measure(trained, normalization=mode, **settings)
    how = f", {mode}" if trained.config.model.normalizes else ""
    with counting(err, trained.config.name + how) as on_progress:
        return measure(trained, normalization=mode, on_progress=on_progress, **settings)


def _merged(found: "Sequence[innerloop.training.measurement.Measurement]") -> JsonObject:
    """One record; with several modes, it holds all of them under `modes`."""
    records = [measurement.to_json() for measurement in found]
    modes = {"modes": {record["normalization"]: record for record in records}} if len(records) > 1 else {}
    return records[0] | modes


def _show(found: "Sequence[innerloop.training.measurement.Measurement]", config: Config) -> None:
    """Print the adaptation curve as a table with one column per mode, and the conditions of the measurement."""
    from innerloop.training.measurement import ReturnMeasurement, ScoreMeasurement

    first = found[0]
    if isinstance(first, ReturnMeasurement):
        _show_curves("updates", {"return": first}, config)
        console().print(_return_conditions(first))
        if words := broken(first.broken_trajectories):
            console().print(f"{words}.", style="bold")
        return _print_diverged(first)
    scores = [m for m in found if isinstance(m, ScoreMeasurement)]
    named = lambda m: f"{m.score}, {m.normalization}" if len(scores) > 1 else m.score
    _show_curves("inner steps", {named(m): m for m in scores}, config)
    console().print(_score_conditions(scores, config))
    for m in scores:
        _print_diverged(m, m.normalization if len(scores) > 1 else "")
    return None


def _show_curves(
    steps: str, columns: "dict[str, innerloop.training.measurement.Measurement]", config: Config
) -> None:
    """Print a title, and a row for each recorded step."""
    table = new_table(steps, *columns)
    found = list(columns.values())
    for i, step in enumerate(found[0].steps):
        points = ((m.curve.mean[i], m.curve.ci95[i], m.score) for m in found)
        table.add_row(str(step), *(with_interval(*point) for point in points))
    out = console()
    out.print(f"{found[0].source}: {_title(found[0], config)}")
    out.print(table)


def _print_diverged(found: "innerloop.training.measurement.Measurement", mode: str = "") -> None:
    """Print the number of tasks with a non-finite loss or return, if any."""
    if words := diverged(found.diverged_tasks, found.tasks):
        console().print(f"{mode + ': ' if mode else ''}{words}.", style="bold")


def _title(found: "innerloop.training.measurement.Measurement", config: Config) -> str:
    """What was learned, in words."""
    from innerloop.training.measurement import ScoreMeasurement

    if not isinstance(found, ScoreMeasurement):
        return f"{found.algorithm}, undiscounted return"
    if found.score == "loss":
        maximum = "at most " if config.data.spec.needs_file else ""  # smaller groups give all rows but one
        return f"{found.algorithm}, {maximum}{counted(found.shots, 'shot')}, mean squared error"
    return f"{found.algorithm}, {found.ways}-way {found.shots}-shot"


def _return_conditions(found: "innerloop.training.measurement.ReturnMeasurement") -> str:
    """Everything that a policy's numbers depend on, in one line."""
    return (
        f"Mean ± 95 % interval over {counted(found.tasks, found.classes + ' task')}; "
        f"{counted(found.trajectories, 'trajectory', 'trajectories')} of {found.horizon} steps each"
        f"{', more where they end early' if found.restarts else ''}; "
        f"reward {found.reward}; step size {found.inner_learning_rate:g}, then {found.later_learning_rate:g}; "
        f"seed {found.seed}; {_precision_note(found)}{trained_for(found, 'meta-iteration')}took {found.seconds:.0f} s."
    )


def _score_conditions(
    scores: "Sequence[innerloop.training.measurement.ScoreMeasurement]", config: Config
) -> str:
    """The same for scores that differ only in their normalisation mode."""
    found = scores[0]
    shown = config.model.normalizes or len(scores) > 1
    table = config.data.spec.needs_file
    queries = ("at most " if table else "") + counted(found.queries_per_class, "query", "queries")
    queries += "; unit: the variance of y over the training rows" if table else ""
    queries += " per class" if found.score == "accuracy" else ""
    modes = f"normalisation {', '.join(m.normalization for m in scores)}; " if shown else ""
    return (
        f"Mean ± 95 % interval over {counted(found.tasks, found.classes + ' task')}; "
        f"{modes}{queries}; {_rotation_note(found)}seed {found.seed}; {_precision_note(found)}"
        f"{trained_for(found, 'meta-step')}took {found.seconds:.0f} s."
    )


def _rotation_note(found: "innerloop.training.measurement.ScoreMeasurement") -> str:
    """Whether classes are rotated, if that applies."""
    return "" if found.rotations is None else f"classes {'rotated' if found.rotations else 'upright'}; "


def _precision_note(found: "innerloop.training.measurement.Measurement") -> str:
    """The precision of matrix products, unless it is float32."""
    return "" if found.precision == "float32" else f"products in {found.precision}; "


def trained_for(found: "innerloop.training.measurement.Measurement", unit: str) -> str:
    """The length of training, if known."""
    length = found.trained_meta_steps
    return "" if length is None else f"trained for {counted(length, unit)}; "
