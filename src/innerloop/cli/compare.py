"""`innerloop compare`: runs on the same held-out tasks, in one table."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Annotated, Literal

from innerloop.cli.common import Devices, Runs, console, parse, print_json, start_jax
from innerloop.cli.tables import new_table
from innerloop.config.bounds import TASKS


@dataclass(frozen=True)
class Compare:
    """Compare runs on the same held-out tasks. Runs that differ only in their seed share a row.

    Every run is compared with the first in pairs: seed by seed if both have several seeds, else task by task. Runs that
    were measured on other tasks, such as with other numbers of queries, are compared without pairs.

    Example: innerloop compare runs/maml/seed-* runs/anil/seed-* --format markdown
    """

    runs: Runs
    tasks: Annotated[int, TASKS] = 600
    """Held-out tasks per measurement; all of them if there are fewer (groups of a table)."""
    format: Literal["text", "markdown", "csv", "latex", "json"] = "text"
    """Output format of the table."""
    devices: Devices = None


def run(argv: Sequence[str]) -> int:
    """Run `innerloop compare` and return the exit code."""
    arguments = parse(Compare, argv)
    start_jax(arguments.devices)
    from innerloop.cli.progress import counting
    from innerloop.report import measurements, summary
    from innerloop.training.trained import load_trained

    loaded = [load_trained(run) for run in arguments.runs]
    progress_for = partial(counting, console(stderr=True))
    found = summary.rows(measurements.gather(loaded, arguments.tasks, progress_for, baselines=False))
    out = console()
    if arguments.format == "json":
        print_json([asdict(row) for row in found])
    elif arguments.format == "text":
        optional = ("score", "inner steps", "tasks", "pairs", "seeds")
        out.print(new_table(*summary.heads(found), left=2, rows=summary.table_of(found), optional=optional))
        out.print(summary.note(found))
    else:
        for line in summary.FORMATS[arguments.format](found).splitlines():
            out.print(line)
    return 0
