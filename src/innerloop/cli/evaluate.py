"""`innerloop evaluate`: the adaptation curve of a trained initialisation on held-out tasks."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_args

import tyro
from tyro.conf import arg

from innerloop.cli.common import Count, Devices, Steps, console, parse, print_json, start_jax
from innerloop.config.bounds import MEMBERS, TASKS, TEST_SEED
from innerloop.config.schema import Normalization
from innerloop.errors import InnerloopError
from innerloop.io.text import counted, diverged, with_interval

if TYPE_CHECKING:
    import innerloop.training.measure
    import innerloop.training.storage.sources
    import innerloop.training.trained


@dataclass(frozen=True)
class Evaluate:
    """Measure a trained initialisation on held-out tasks: the mean after each inner step with its 95 % interval.

    Example: innerloop evaluate runs/omniglot-5way-1shot-maml --tasks 1000
    """

    source: Annotated[str, tyro.conf.Positional]
    """A run's folder, a weights file, or a preset whose weights ship."""
    tasks: Annotated[Count, TASKS] = None
    """Held-out tasks."""
    steps: Steps = None
    """Inner steps."""
    shots: Annotated[Count, MEMBERS] = None
    """Support examples of each class (for sinusoids: of the task)."""
    queries: Annotated[Count, MEMBERS] = None
    """Query examples of each class (for sinusoids: of the task)."""
    normalization: Annotated[
        Literal["transductive", "inductive", "support", "all"] | None,
        arg(metavar="{transductive,inductive,support,all}", help_behavior_hint="(default: as trained)"),
    ] = None
    """Which batch gives a query's normalisation statistics: all queries of the task, the query with the support
    set, or the support set alone; all: each in turn."""
    part: Literal["test", "validation", "train"] = "test"
    """Which classes."""
    seed: Annotated[int, TEST_SEED] = 0
    """Seed of the tasks."""
    data_folder: Annotated[str, arg(metavar="DIR", help_behavior_hint="(default: as trained)")] = ""
    """Where the images are (data sets `folder` and `mini_imagenet`)."""
    devices: Devices = None
    """CPU devices that tasks are split over."""
    json: bool = False
    """Print one JSON object and nothing else."""


def run(argv: Sequence[str]) -> int:
    """Measure and print."""
    arguments = parse(Evaluate, argv)
    start_jax(arguments.devices)
    from innerloop.training.trained import load_trained

    trained = load_trained(arguments.source, data_folder=arguments.data_folder)
    if trained.config.reinforcement:
        _refuse_examples(arguments)
    records = [_measured(trained, arguments, mode) for mode in _modes(trained, arguments)]
    if arguments.json:
        print_json(_merged(records))
    else:
        _show(records)
    return 0


def _refuse_examples(arguments: Evaluate) -> None:
    """Raise InnerloopError for numbers of examples, which policies have none of."""
    for name in ("shots", "queries"):
        value = getattr(arguments, name)
        if value is not None:
            raise InnerloopError(
                f"--{name}", "policies learn from trajectories", got=value, do="leave it out"
            )


def _modes(trained: "innerloop.training.trained.Trained", arguments: Evaluate) -> list[Normalization]:
    """The normalisation modes to measure; with `all`, the run's own comes first."""
    own = trained.config.evaluation.normalization
    if trained.config.reinforcement:
        if arguments.normalization is not None:
            raise InnerloopError("--normalization", "policies have none", do="leave it out")
        return [own]
    if arguments.normalization == "all":
        return sorted(get_args(Normalization), key=lambda mode: mode != own)
    return [arguments.normalization or own]


def _measured(
    trained: "innerloop.training.trained.Trained", arguments: Evaluate, mode: Normalization
) -> dict[str, Any]:
    """One measurement, with a bar on stderr if someone sees it."""
    from innerloop.cli.progress import counting
    from innerloop.training.measure import measure

    settings = {
        name: getattr(arguments, name) for name in ("tasks", "steps", "shots", "queries", "seed", "part")
    }
    err = console(stderr=True)
    if not err.is_terminal:
        return measure(trained, normalization=mode, **settings)
    with counting(err, f"{trained.config.name}, {mode}") as watch:
        return measure(trained, normalization=mode, watch=watch, **settings)


def _merged(records: list[dict[str, Any]]) -> dict[str, Any]:
    """One object: the record itself, with those of all modes under `modes` where several were asked for."""
    if len(records) == 1:
        return records[0]
    return {**records[0], "modes": {record["normalization"]: record for record in records}}


def _show(records: list[dict[str, Any]]) -> None:
    """The adaptation curve as a table, one column per mode, and what the numbers depend on."""
    from rich import box
    from rich.table import Table

    first = records[0]
    if "returns" in first:
        return _show_returns(first)
    name = "accuracy" if "accuracy" in first else "loss"
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("inner steps", justify="right")
    for record in records:
        heading = f"{name}, {record['normalization']}" if len(records) > 1 else name
        table.add_column(heading, justify="right")
    for i, step in enumerate(first["curve"]["steps"]):
        curves = [record["curve"][name] for record in records]
        table.add_row(str(step), *(with_interval(c["mean"][i], c["ci95"][i], name) for c in curves))
    out = console()
    out.print(f"{first['source']}: {_title(first)}")
    out.print(table)
    out.print(_conditions(first, [record["normalization"] for record in records]))
    for record in records:
        _print_diverged(record, record["normalization"] if len(records) > 1 else "")
    return None


def _show_returns(record: dict[str, Any]) -> None:
    """Returns after every update, and what the numbers depend on."""
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("updates", justify="right")
    table.add_column("return", justify="right")
    for updates, mean, ci95 in zip(record["updates"], record["returns"], record["ci95"], strict=True):
        table.add_row(str(updates), with_interval(mean, ci95, "return"))
    out = console()
    out.print(f"{record['source']}: {record['algorithm']}, undiscounted return")
    out.print(table)
    length = record["trained_meta_steps"]
    out.print(
        f"Mean ± 95 % interval over {counted(record['tasks'], record['classes'] + ' task')}; "
        f"{counted(record['trajectories'], 'trajectory', 'trajectories')} of {record['horizon']} steps each"
        f"{', more where they end early' if record['restarts'] else ''}; "
        f"reward {record['reward']}; step size {record['inner_learning_rate']:g}, then "
        f"{record['later_learning_rate']:g}; seed {record['seed']}; "
        f"{'' if length is None else 'trained for ' + counted(length, 'meta-iteration') + '; '}"
        f"took {record['seconds']:.0f} s."
    )
    _print_diverged(record)


def _print_diverged(record: dict[str, Any], mode: str = "") -> None:
    """How many tasks are in the mean with a loss or return that is no finite number."""
    if words := diverged(record):
        console().print(f"{mode + ': ' if mode else ''}{words}.", style="bold")


def _title(record: dict[str, Any]) -> str:
    """What was learnt, in words."""
    if "accuracy" not in record:
        return f"{record['algorithm']}, {counted(record['shots'], 'shot')}, mean squared error"
    return f"{record['algorithm']}, {record['ways']}-way {record['shots']}-shot"


def _conditions(record: dict[str, Any], modes: Sequence[str]) -> str:
    """Everything that the numbers depend on, in one line."""
    queries = counted(record["queries_per_class"], "query", "queries")
    queries += " per class" if "accuracy" in record else ""
    length = record["trained_meta_steps"]
    return (
        f"Mean ± 95 % interval over {counted(record['tasks'], record['classes'] + ' task')}; "
        f"normalisation {', '.join(modes)}; {queries}; seed {record['seed']}; "
        f"{'' if length is None else 'trained for ' + counted(length, 'meta-step') + '; '}"
        f"took {record['seconds']:.0f} s."
    )
