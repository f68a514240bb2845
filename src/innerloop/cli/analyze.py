"""`innerloop analyze`: rapid learning or feature reuse? All experiments on one trained run."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, get_args

from tyro.conf import arg

from innerloop.cli import analyze_several
from innerloop.cli.common import (
    Count,
    DataFolder,
    Devices,
    Runs,
    console,
    new_table,
    parse,
    print_json,
    start_jax,
)
from innerloop.config.bounds import COUNTS, STEPS, TASKS, TEST_SEED, Bounds
from innerloop.errors import InnerloopError
from innerloop.io.files import OVERWRITE, OutputFolder, resolved
from innerloop.io.text import counted, with_interval
from innerloop.io.untrusted import JsonObject, read_object

if TYPE_CHECKING:
    from innerloop.analysis.run_all import ExperimentRunner, Request

Name = Literal["freeze", "similarity", "nil", "weights", "steps", "landscape", "paths", "early", "against"]


@dataclass(frozen=True)
class Analyze:
    """Rapid learning or feature reuse? Freezing, similarity, NIL and more on a trained run, as one HTML page with
    tables (CSV, JSON) and figures (PNG, SVG). Several runs are shown side by side. Results are cached.

    Example: innerloop analyze omniglot-5way-1shot-maml omniglot-5way-1shot-anil --only freeze nil --tasks 500
    """

    runs: Runs
    """Run folders, weights files, or presets with bundled weights."""
    only: Annotated[
        tuple[Name, ...], arg(metavar="NAME [NAME ...]", help_behavior_hint="(default: all)")
    ] = ()
    """Experiments: freeze, similarity, nil, weights; for a single run also steps, landscape, paths, early (needs
    snapshots), against (needs --against)."""
    tasks: Annotated[int, TASKS, arg(metavar="N")] = 1000
    """Held-out tasks for scores; experiments that look at activations or parameters use at most 60."""
    frozen: Annotated[
        tuple[str, ...], arg(metavar="LAYER[,LAYER...] ...", help_behavior_hint="(default: no others)")
    ] = ()
    """Additional sets of layers to freeze, as in: --frozen head conv3,conv4"""
    against: Annotated[str | None, arg(metavar="RUN2", help_behavior_hint="")] = None
    """A second run to compare layers with."""
    shots: Annotated[Count, COUNTS] = None
    """Support examples per class."""
    steps: Annotated[
        int | None, Bounds(1, STEPS.high), arg(metavar="N", help_behavior_hint="(default: as evaluated)")
    ] = None
    """Inner steps."""
    out: Annotated[
        Path | None,
        arg(metavar="DIR", help_behavior_hint="(default: analysis in the run, or analysis-RUN)"),
    ] = None
    """Where to write the page, tables and figures; with --json, nothing is written by default."""
    overwrite: bool = False
    """Replace files in DIR even if they belong to other runs or were not written by an analysis."""
    seed: Annotated[int, TEST_SEED] = 0
    """Seed for drawing the tasks."""
    fresh: bool = False
    """Rerun all experiments, even if their results are cached."""
    data_folder: DataFolder = ""
    """Where the images are (data sets `folder` and `mini_imagenet`)."""
    devices: Devices = None
    """CPU devices to split tasks over."""
    json: bool = False
    """Print one JSON object and nothing else."""


def run(argv: Sequence[str]) -> int:
    """Run `innerloop analyze` and return the exit code."""
    from innerloop.cli.progress import counting

    arguments = parse(Analyze, argv)
    start_jax(arguments.devices)
    runners, names = _runners(_requests(arguments), arguments.only)  # before a folder is made
    out = arguments.out or (None if arguments.json else _default_out(arguments.runs))
    folder = None if out is None else _output_folder(out, arguments)
    progress_for = partial(counting, console(stderr=True))
    if len(runners) > 1:
        analyze_several.run(
            runners, names, folder, progress_for, fresh=arguments.fresh, as_json=arguments.json
        )
    else:
        results = runners[0].run(names, progress_for=progress_for, fresh=arguments.fresh)
        if folder is not None:
            from innerloop.report import analysis_page

            analysis_page.write(results, names, folder)
        if arguments.json:
            print_json(results)
        else:
            _show(results)
    if folder is not None:
        _remove_stale(folder)
    if not arguments.json:
        console().print(f"Page:     {out}/index.html", style="bold")
        if len(runners) == 1:
            console().print(f"Tables:   {out}/results.json, {', '.join(f'{name}.csv' for name in names)}")
            console().print(f"Figures:  {out}/figures/")
    return 0


def _requests(arguments: Analyze) -> "list[Request]":
    """One request per run. Raises InnerloopError if there are no runs, or --against is given with several."""
    from innerloop.analysis.run_all import Request

    if not arguments.runs:
        raise InnerloopError("analyze", "needs a run", hint="give a run's folder")
    if arguments.against is not None and len(arguments.runs) > 1:
        hint = "give one run and --against, or several runs without it"
        raise InnerloopError("--against", "compares the layers of one run with another's", hint=hint)
    common = {name: getattr(arguments, name) for name in ("tasks", "seed", "shots", "steps", "data_folder")}
    frozen = tuple(tuple(names.split(",")) for names in arguments.frozen)
    return [Request(run, frozen=frozen, against=arguments.against, **common) for run in arguments.runs]


def _runners(
    requests: "Sequence[Request]", only: Sequence[str]
) -> "tuple[list[ExperimentRunner], list[str]]":
    """The runner of each run, and the experiments to run.

    Raises:
        InnerloopError: for RL runs, and for experiments that the runs do not support.
    """
    from innerloop.analysis.run_all import EXPERIMENTS, ExperimentRunner
    from innerloop.learner.pretrained import refuse_policies
    from innerloop.training.storage.sources import load_weights

    runners = [ExperimentRunner(request) for request in requests]
    for runner in runners:
        refuse_policies(runner.config)
    if (against := requests[0].against) is not None:
        refuse_policies(load_weights(against).config)
    if len(runners) > 1:
        return runners, analyze_several.experiments(runners, only)
    chosen = only or runners[0].default()
    runners[0].check(chosen)
    return runners, [name for name in EXPERIMENTS if name in chosen]


def _default_out(runs: Sequence[str]) -> Path:
    """`analysis` in the folder of a single run, else a folder in the working directory."""
    first = Path(runs[0])
    if len(runs) == 1 and first.is_dir():
        return first / "analysis"
    # Drop only the suffix of a weights file: `lr0.1` is a whole name.
    names = "-".join(resolved(run).name.removesuffix(".safetensors") for run in runs)
    return Path(f"analysis-{names}" if len(names) < 100 else f"analysis-of-{len(runs)}-runs")


def _output_folder(out: Path, arguments: Analyze) -> OutputFolder:
    """Make the output folder.

    Raises:
        InnerloopError: if that fails, or the folder holds the analysis of other runs, or files that no analysis wrote.
    """
    from innerloop.training.storage.sources import inputs_of

    sources = filter(None, (*arguments.runs, arguments.against))
    inputs = [path for source in sources for path in inputs_of(source, arguments.data_folder)]
    folder = OutputFolder(out, overwrite=arguments.overwrite, inputs=inputs)
    folder.make("figures")
    for name in ("index.html", "results.json", *(f"{name}.csv" for name in get_args(Name))):
        folder.check(name)
    # The default folder inside a run holds that run's analysis, even if the run has been moved since.
    if not arguments.overwrite and (arguments.out or len(arguments.runs) > 1):
        _refuse_other_runs(folder, arguments.runs)
    return folder


def _refuse_other_runs(folder: OutputFolder, runs: Sequence[str]) -> None:
    """Raise InnerloopError if the folder holds the analysis of other runs."""
    path = folder.path_of("results.json")
    if not path.is_file():
        return
    found = read_object(path, 1 << 30, follow=False)
    known = [str(x["source"]) for x in found.get("runs", [found]) if "source" in x]
    if known and sorted(map(resolved, known)) != sorted(map(resolved, runs)):
        wrong = "holds the analysis of other runs"
        raise InnerloopError(str(folder.path), wrong, got=", ".join(known), hint=OVERWRITE)


def _remove_stale(folder: OutputFolder) -> None:
    """Remove files that an earlier analysis wrote and this one did not."""
    from innerloop.report.analysis_figures import FIGURES

    tables = [f"{name}.csv" for name in get_args(Name)]
    figures = [f"figures/{name}.{kind}" for name in FIGURES for kind in ("png", "svg")]
    for name in (*tables, *figures):
        if folder.path_of(name) not in folder.written:
            folder.discard(name)


def _show(results: JsonObject) -> None:
    """Print the freezing table and the verdict."""
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
