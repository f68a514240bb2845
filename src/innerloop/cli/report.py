"""`innerloop report`: one HTML page about one or more runs."""

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro
from tyro.conf import arg

from innerloop.bounds import TASKS
from innerloop.cli.shared import Devices, console, parse, start_jax
from innerloop.errors import InnerloopError


@dataclass(frozen=True)
class Report:
    """Write one self-contained HTML page about one or more runs: results, curves, examples, settings.

    Runs on the same problem are compared; figures are kept in RUN/figures too.

    Example: innerloop report runs/glyphs-5way-1shot-maml runs/glyphs-5way-1shot-reptile
    """

    runs: Annotated[
        tuple[str, ...], tyro.conf.Positional, arg(metavar="RUN [RUN ...]", help_behavior_hint="")
    ]
    """Run folders, weights files, or presets whose weights ship."""
    out: Annotated[
        Path | None, arg(metavar="FILE", help_behavior_hint="(default: report.html in the first run)")
    ] = None
    """Where the page is written."""
    tasks: Annotated[int, TASKS] = 600
    """Held-out tasks for every measurement."""
    devices: Devices = None
    """CPU devices that tasks are split over."""


def run(argv: Sequence[str]) -> int:
    """Measure and write the page."""
    arguments = parse(Report, argv)
    if not arguments.runs:
        raise InnerloopError("report", "needs a run", do="give a run's folder")
    start_jax(arguments.devices)
    from innerloop.report import collect, page

    out = arguments.out or default_out(arguments.runs)
    loaded = collect.load(arguments.runs)
    page.check_writable(out)  # makes its folder: not before it is known that there are runs
    groups = collect.gather(loaded, arguments.tasks, watching)
    page.write(groups, out, lambda what: console().print(f"drawn: {what}"))
    console().print(f"Report: {out}", style="bold")
    return 0


def default_out(runs: Sequence[str]) -> Path:
    """`report.html` in the first run's folder, or here if that is no folder."""
    first = Path(runs[0])
    return first / "report.html" if first.is_dir() else Path("report.html")


def watching(title: str) -> "AbstractContextManager":
    """Progress of one measurement."""
    from innerloop.progress import counting

    return counting(console(), title)
