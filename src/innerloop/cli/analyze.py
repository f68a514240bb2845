"""`innerloop analyze`: rapid learning or feature reuse? All experiments on one trained run."""

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, get_args

import tyro
from tyro.conf import arg

from innerloop.cli.common import Count, Devices, console, new_table, parse, print_json, start_jax
from innerloop.config.bounds import MEMBERS, STEPS, TASKS, TEST_SEED, Bounds
from innerloop.io.files import OutputFolder
from innerloop.io.text import counted, with_interval
from innerloop.io.untrusted import JsonObject

if TYPE_CHECKING:
    import innerloop.analysis.run_all

Name = Literal["freeze", "similarity", "nil", "weights", "steps", "landscape", "paths", "early", "against"]


@dataclass(frozen=True)
class Analyze:
    """Rapid learning or feature reuse? Freezing, similarity, NIL and more on a trained run, as one HTML page with
    tables (CSV, JSON) and figures (PNG, SVG). Results are cached, so a second call is instant.

    Example: innerloop analyze omniglot-5way-1shot-maml --only freeze nil --tasks 500
    """

    source: Annotated[str, tyro.conf.Positional]
    """A run's folder, a weights file, or a preset with bundled weights."""
    only: Annotated[
        tuple[Name, ...], arg(metavar="NAME [NAME ...]", help_behavior_hint="(default: all)")
    ] = ()
    """Experiments: freeze, similarity, nil, weights, steps, landscape, paths, early (needs the run's snapshots),
    against (needs --against)."""
    tasks: Annotated[int, TASKS, arg(metavar="N")] = 1000
    """Held-out tasks for scores; experiments that look at activations or parameters take at most 60."""
    frozen: Annotated[
        tuple[str, ...], arg(metavar="LAYER[,LAYER...] ...", help_behavior_hint="(default: none more)")
    ] = ()
    """Further sets of layers to freeze, as in: --frozen head conv3,conv4"""
    against: Annotated[str | None, arg(metavar="RUN2", help_behavior_hint="")] = None
    """A second run whose layers are compared with this one's."""
    shots: Annotated[Count, MEMBERS] = None
    """Support examples of each class."""
    steps: Annotated[
        int | None, Bounds(1, STEPS.high), arg(metavar="N", help_behavior_hint="(default: as evaluated)")
    ] = None
    """Inner steps."""
    out: Annotated[
        Path | None,
        arg(metavar="DIR", help_behavior_hint="(default: analysis in the run, or analysis-SOURCE)"),
    ] = None
    """Where page, tables and figures are written; with --json nothing is written by default."""
    overwrite: bool = False
    """Replace files in DIR even if an analysis did not write them."""
    seed: Annotated[int, TEST_SEED] = 0
    """Seed of the tasks."""
    fresh: bool = False
    """Run all experiments again, even if their results are cached."""
    data_folder: Annotated[str, arg(metavar="DIR", help_behavior_hint="(default: as trained)")] = ""
    """Where the images are (data sets `folder` and `mini_imagenet`)."""
    devices: Devices = None
    """CPU devices that tasks are split over."""
    json: bool = False
    """Print one JSON object and nothing else."""


def run(argv: Sequence[str]) -> int:
    """Run `innerloop analyze`; returns the exit code."""
    arguments = parse(Analyze, argv)
    start_jax(arguments.devices)
    from innerloop.analysis.run_all import EXPERIMENTS, analyze

    asked = _request(arguments)
    _check_source(asked, arguments.only)  # before a folder is made
    out = arguments.out or (None if arguments.json else _default_out(arguments.source))
    folder = None if out is None else _output_folder(out, arguments)
    results = analyze(asked, arguments.only, progress_for=_progress, fresh=arguments.fresh)
    made = [name for name in EXPERIMENTS if name in results]
    if folder is not None:
        from innerloop.report.analysis_page import write

        write(results, made, folder)
    if arguments.json:
        print_json(results)
        return 0
    _show(results)
    console().print(f"Page:     {out}/index.html", style="bold")
    console().print(f"Tables:   {out}/results.json, {', '.join(f'{name}.csv' for name in made)}")
    console().print(f"Figures:  {out}/figures/")
    return 0


def _request(arguments: Analyze) -> "innerloop.analysis.run_all.Request":
    from innerloop.analysis.run_all import Request

    return Request(
        source=arguments.source,
        tasks=arguments.tasks,
        seed=arguments.seed,
        shots=arguments.shots,
        steps=arguments.steps,
        frozen=tuple(tuple(names.split(",")) for names in arguments.frozen),
        against=arguments.against,
        data_folder=arguments.data_folder,
    )


def _check_source(asked: "innerloop.analysis.run_all.Request", only: Sequence[str]) -> None:
    """Raise InnerloopError for RL runs, and for experiments that the run does not allow."""
    from innerloop.analysis.run_all import Laboratory
    from innerloop.learner.pretrained import refuse_policies
    from innerloop.training.storage import weights
    from innerloop.training.storage.sources import weights_path

    for source in filter(None, (asked.source, asked.against)):
        refuse_policies(weights.load(weights_path(source))[1])
    laboratory = Laboratory(asked)
    laboratory.check(only or laboratory.default())


def _default_out(source: str) -> Path:
    """`analysis` in the run's folder, else a folder here."""
    path = Path(source)
    return path / "analysis" if path.is_dir() else Path(f"analysis-{path.stem}")


def _output_folder(out: Path, arguments: Analyze) -> OutputFolder:
    """Make the folder. Raises InnerloopError if that fails, or it holds files that an analysis did not write."""
    from innerloop.training.storage.sources import inputs_of

    sources = filter(None, (arguments.source, arguments.against))
    inputs = [path for source in sources for path in inputs_of(source, arguments.data_folder)]
    folder = OutputFolder(out, overwrite=arguments.overwrite, inputs=inputs)
    folder.make("figures")
    for name in ("index.html", "results.json", *(f"{name}.csv" for name in get_args(Name))):
        folder.check(name)
    return folder


def _progress(title: str) -> "AbstractContextManager":
    """Progress of one experiment, on stderr."""
    from innerloop.cli.progress import counting

    return counting(console(stderr=True), title)


def _show(results: JsonObject) -> None:
    """The freezing table and the verdict."""
    out, metric = console(), results["metric"]
    if "freeze" in results:
        table = new_table("frozen layers", metric, "change", left=1)
        for line in results["freeze"]:
            change = with_interval(line["change"], line["change_ci95"], metric) if line["frozen"] else ""
            value = with_interval(line[metric], line["ci95"], metric)
            table.add_row(", ".join(line["frozen"]) or "none", value, change)
        out.print(table)
    tasks = counted(results["tasks"], "held-out task")
    out.print(f"{results['source']}: mean ± 95 % interval over {tasks}; changes are paired.")
    if "verdict" in results:
        out.print(f"Verdict: {results['verdict']['kind']}.", style="bold")
        for sentence in results["verdict"]["sentences"]:
            out.print(f"  {sentence}")
