"""Train for as long as the papers, and measure the accuracy on 10 000 held-out tasks.

python -m benchmarks.accuracy --paper-length              all presets whose data need no licence; runs go into runs/
python -m benchmarks.accuracy --paper-length NAME ...     these; resumes stopped runs and skips finished ones
python -m benchmarks.accuracy --paper-length NAME --dry   2 meta-steps and few tasks; keeps nothing
"""

import argparse
import sys
import tempfile
from pathlib import Path

from innerloop.cli.common import start_jax
from innerloop.errors import InnerloopError
from innerloop.training.interruption.signals import Stopped


def parser() -> argparse.ArgumentParser:
    """The argument parser."""
    made = argparse.ArgumentParser(
        prog="python -m benchmarks.accuracy",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    made.add_argument("--paper-length", nargs="*", metavar="NAME", required=True, help="presets")
    made.add_argument("--runs", type=Path, default=Path("runs"), help="parent of the run folders")
    made.add_argument("--tasks", type=int, default=10_000, help="number of held-out tasks (default: 10000)")
    made.add_argument("--dry", action="store_true", help="2 meta-steps and few tasks; keep nothing")
    return made


def work(asked: argparse.Namespace) -> None:
    """Train and measure, then write the tables, unless it is a dry run."""
    from benchmarks.accuracy.measure import FOLDER
    from benchmarks.accuracy.paper_length import jobs, run_all
    from benchmarks.accuracy.tables import write_tables

    names, tasks = asked.paper_length, asked.tasks
    if asked.dry:
        with tempfile.TemporaryDirectory(prefix="innerloop-paper-length-") as folder:
            return run_all(jobs(names, Path(folder) / "runs", Path(folder), tasks, dry=True))
    run_all(jobs(names, asked.runs, FOLDER, tasks, dry=False))
    return write_tables(FOLDER)


def main(words: list[str] | None = None) -> int:
    """Run the command and return its exit code: 2 for bad input, 128 plus the number of a signal that stopped it."""
    asked = parser().parse_args(words)
    if asked.tasks < 2:
        print(f"--tasks: must be 2 or more, got {asked.tasks}.", file=sys.stderr)
        return 2
    try:
        work(asked)
    except InnerloopError as error:
        print(error, file=sys.stderr)
        return 2
    except Stopped as stopped:
        print("Everything is saved; run the same command again to resume.", file=sys.stderr)
        return 128 + stopped.signal_number
    return 0


if __name__ == "__main__":
    start_jax()
    sys.exit(main())
