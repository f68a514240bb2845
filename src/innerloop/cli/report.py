"""`innerloop report`: an HTML page on one or more runs."""

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated

from tyro.conf import arg

from innerloop.cli.common import Devices, Runs, console, parse, start_jax
from innerloop.config.bounds import TASKS
from innerloop.errors import InnerloopError
from innerloop.io.files import check_output_path, new_output
from innerloop.io.folders import OutputFolder


@dataclass(frozen=True)
class Report:
    """Write a self-contained HTML page on one or more runs: results, curves, examples, settings.

    Runs on the same problem are compared; figures are also saved in RUN/figures. For runs of `innerloop.fit` and
    `fit_policy` the page shows what training logged.

    Example: innerloop report runs/glyphs-5way-1shot-maml runs/glyphs-5way-1shot-reptile
    """

    runs: Runs
    out: Annotated[
        Path | None, arg(metavar="FILE", help_behavior_hint="(default: report.html in the first run)")
    ] = None
    """Where to write the page."""
    overwrite: bool = False
    """Replace an existing file."""
    tasks: Annotated[int, TASKS] = 600
    """Held-out tasks per measurement."""
    devices: Devices = None


def run(argv: Sequence[str]) -> int:
    """Run `innerloop report` and return the exit code."""
    arguments = parse(Report, argv)
    from innerloop.training.storage.run_directory import RunFolder

    are_fits = any(RunFolder(run).is_fit for run in arguments.runs)
    place = _report_on_fits(arguments) if are_fits else _report_on_runs(arguments)
    console().print(f"Report: {place}", style="bold")
    return 0


def _report_on_runs(arguments: Report) -> str:
    """Measure the runs and write the page on them; return its place in words."""
    start_jax(arguments.devices)
    from innerloop.cli.progress import counting
    from innerloop.report import measurements, run_page
    from innerloop.training.storage.sources import inputs_of
    from innerloop.training.trained import load_trained

    loaded = [load_trained(run) for run in arguments.runs]
    inputs = [path for source in arguments.runs for path in inputs_of(source)]
    draft, place = _destination(arguments, inputs)  # before anything is measured
    groups = measurements.gather(loaded, arguments.tasks, partial(counting, console()))
    run_page.write(groups, draft, lambda what: console().print(f"drawn: {what}"))
    return place


def _report_on_fits(arguments: Report) -> str:
    """Write the page on runs without a config: what training logged. Raises InnerloopError for other options."""
    for name, value in (("tasks", arguments.tasks), ("devices", arguments.devices)):
        if value != getattr(Report, name):
            wrong = "nothing is measured in the report of a run of `innerloop.fit` or `fit_policy`"
            raise InnerloopError(f"--{name}", wrong, got=value, hint="leave it out")
    from innerloop.report import fit_page
    from innerloop.training.storage.sources import files_of_run

    runs = fit_page.load(arguments.runs)
    draft, place = _destination(arguments, [path for run in arguments.runs for path in files_of_run(run)])
    with draft as path:
        path.write_text(fit_page.page(runs), encoding="utf-8")
    return place


def _destination(arguments: Report, inputs: list[Path]) -> tuple[AbstractContextManager[Path], str]:
    """A draft of the page, and its place in words: by default `report.html` in the first run's folder, or here.

    Raises InnerloopError if the file exists and must not be replaced, or is one of the `inputs`, which are read.
    """
    overwrite, first = arguments.overwrite, Path(arguments.runs[0])
    if arguments.out is None and first.is_dir():
        out, folder = first / "report.html", OutputFolder(first, overwrite=overwrite, inputs=inputs)
        folder.check(out.name)
        draft = folder.replacing(out.name)
    else:
        out = arguments.out or Path("report.html")
        path = check_output_path(out, overwrite=overwrite, inputs=inputs, new_folder=True)
        draft = new_output(path, overwrite=overwrite)
    replaced = arguments.out is None and out.exists()  # for example a page on several runs
    return draft, f"{out} (in place of an earlier page; keep both with --out)" if replaced else str(out)
