"""`innerloop analyze`: rapid learning or feature reuse? All experiments on one trained run."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from tyro.conf import arg

from innerloop.cli import analyze_folder, analyze_several
from innerloop.cli.common import Count, DataFolder, Devices, Runs, console, parse, print_json, start_jax
from innerloop.cli.tables import new_table
from innerloop.config.bounds import COUNTS, STEPS, TASKS, TEST_SEED, Bounds
from innerloop.errors import InnerloopError
from innerloop.io.folders import OutputFolder
from innerloop.io.text import counted
from innerloop.io.untrusted import JsonObject

if TYPE_CHECKING:
    from innerloop.analysis.run_all import ExperimentRunner, Request

Name = Literal["freeze", "similarity", "nil", "weights", "steps", "landscape", "paths", "early", "against"]


@dataclass(frozen=True)
class Analyze:
    """Rapid learning or feature reuse? Freezing, similarity, NIL and more on a trained run, as one HTML page with
    tables (CSV, JSON) and figures (PNG, SVG). Several runs are shown side by side. Results are cached.

    Example: innerloop analyze runs/maml runs/anil --only freeze nil --tasks 500
    """

    runs: Runs
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
        Path | None, arg(metavar="DIR", help_behavior_hint="(default: analysis in the run, or analysis-RUN)")
    ] = None
    """Where to write the page, tables and figures; with --json, nothing is written by default."""
    overwrite: bool = False
    """Replace files in DIR even if they are of other runs or settings, or of no analysis."""
    seed: Annotated[int, TEST_SEED] = 0
    """Seed for drawing the tasks."""
    fresh: bool = False
    """Rerun all experiments, even if their results are cached."""
    data_folder: DataFolder = ""
    """Where the images are (data sets `folder` and `mini_imagenet`)."""
    devices: Devices = None
    json: bool = False
    """Print one JSON object and nothing else."""


def run(argv: Sequence[str]) -> int:
    """Run `innerloop analyze` and return the exit code."""
    from innerloop.cli.progress import counting

    arguments = parse(Analyze, argv)
    start_jax(arguments.devices)
    runners, names = _runners(_requests(arguments), arguments.only)  # before a folder is made
    out = arguments.out or (None if arguments.json else analyze_folder.default_out(arguments.runs))
    of_runs = (arguments.runs, arguments.against, arguments.data_folder)
    own = {"overwrite": arguments.overwrite, "default": arguments.out is None}
    folder = None if out is None else analyze_folder.opened(out, *of_runs, **own)
    earlier = [] if folder is None else analyze_folder.earlier_experiments(folder, runners, names)
    chosen, fresh = [*names, *earlier], names if arguments.fresh else []
    progress_for = partial(counting, console(stderr=True))
    if len(runners) > 1:
        analyze_several.run(runners, chosen, folder, progress_for, fresh=fresh, as_json=arguments.json)
    else:
        results = runners[0].run(chosen, progress_for=progress_for, fresh=fresh)
        if folder is not None:
            from innerloop.report import analysis_page

            analysis_page.write(results, folder)
        if arguments.json:
            print_json(results)
        else:
            _show(results, arguments.only or [name for name in names if name == "freeze"])
    if out is not None and folder is not None:
        analyze_folder.remove_stale(folder)
        if not arguments.json:
            _show_files(out, folder, earlier)
    return 0


def _requests(arguments: Analyze) -> "list[Request]":
    """One request per run. Raises InnerloopError if --against is given with several."""
    from innerloop.analysis.run_all import Request

    if arguments.against is not None and len(arguments.runs) > 1:
        hint = "give one run and --against, or several runs without it"
        raise InnerloopError("--against", "compares the layers of one run with another's", hint=hint)
    common = {name: getattr(arguments, name) for name in ("seed", "shots", "steps", "data_folder")}
    common["num_tasks"] = arguments.tasks
    frozen = tuple(tuple(names.split(",")) for names in arguments.frozen)
    return [Request(run, frozen=frozen, against=arguments.against, **common) for run in arguments.runs]


def _runners(
    requests: "Sequence[Request]", only: Sequence[str]
) -> "tuple[list[ExperimentRunner], list[str]]":
    """The runner of each run, and the experiments to run.

    Raises InnerloopError for RL runs, and for experiments that the runs do not support.
    """
    from innerloop.analysis.experiments import EXPERIMENTS
    from innerloop.analysis.run_all import ExperimentRunner
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


def _show(results: JsonObject, names: Sequence[str]) -> None:
    """Print what these experiments found, and the verdict."""
    from innerloop.analysis.experiments import EXPERIMENTS
    from innerloop.report.analysis_page import verdict_in_words
    from innerloop.report.analysis_sections import SECTIONS
    from innerloop.report.analysis_text import TABLES, sentence

    out = console()
    for name in (name for name in SECTIONS if name in names):
        tasks = counted(EXPERIMENTS[name].tasks_of(results["tasks"]), "held-out task")
        out.print(f"{SECTIONS[name].title} ({tasks})", style="bold")
        if name in TABLES:
            found = TABLES[name](results)
            shown = [i for i, head in enumerate(found.heads) if head in SHOWN.get(name, found.heads)]
            rows = ([row[i] for i in shown] for row in found.rows)
            out.print(new_table(*(found.heads[i] for i in shown), left=1, rows=rows))
        if words := sentence(name, results):
            out.print(words)
        out.print()
    out.print(f"{results['source']}: mean ± 95 % interval over tasks; changes are paired.")
    kind, *sentences = verdict_in_words(results)
    out.print(kind if kind == "No verdict." else f"Verdict: {kind.lower()}", style="bold")
    for words in sentences:
        out.print(f"  {words}")


SHOWN: dict[str, Sequence[str]] = dict.fromkeys(
    ("similarity", "against"), ("layer", "mean CCA", "CKA", "CKA, debiased")
)
"""The columns of wide tables that a terminal shows; the page has all."""


def _show_files(out: Path, folder: OutputFolder, earlier: Sequence[str]) -> None:
    """Print where the results are, and which of them are from an earlier analysis."""
    also = f" (with {', '.join(earlier)} of an earlier analysis)" if earlier else ""
    tables = [
        path.name for path in folder.written if path.suffix in (".json", ".csv") and path.name[0] != "."
    ]
    console().print(f"Page:     {out}/index.html{also}", style="bold")
    console().print(f"Tables:   {out}/{', '.join(tables)}")
    console().print(f"Figures:  {out}/figures/")
