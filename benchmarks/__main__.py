"""Ours beside the peers, in one process tree.

python -m benchmarks --workload omniglot --json     one workload, as one JSON object
python -m benchmarks --workload cifar-fs-anil       one workload, in words
python -m benchmarks --list                         the workloads' names
python -m benchmarks --quick                        a few, about 3 minutes, into results.json and the docs
python -m benchmarks --all                          all of them, likewise
python -m benchmarks --table                        the docs' table from results.json, nothing timed
python -m benchmarks --counts NAME ...              kernels, bytes and operations of compiled meta-steps, nothing timed
"""

import argparse
import json
import os
import sys
import time
from dataclasses import replace
from typing import Any

from benchmarks.provenance import circumstances
from benchmarks.speed import page
from benchmarks.speed.process import OURS, ContenderError, peers_python
from benchmarks.speed.runner import race
from benchmarks.speed.workloads import Workload, quick, workloads


def parser() -> argparse.ArgumentParser:
    """The command's arguments."""
    made = argparse.ArgumentParser(
        prog="python -m benchmarks", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    what = made.add_mutually_exclusive_group(required=True)
    what.add_argument("--workload", metavar="NAME", help="one workload")
    what.add_argument("--quick", action="store_true", help="a few workloads")
    what.add_argument("--all", action="store_true", help="all workloads")
    what.add_argument("--table", action="store_true", help="write the table from results.json")
    what.add_argument("--counts", nargs="+", metavar="NAME", help="count in the compiled programs")
    what.add_argument("--list", action="store_true", help="the workloads' names")
    made.add_argument("--json", action="store_true", help="with --workload: print one JSON object")
    made.add_argument(
        "--seconds", type=float, help="timed seconds of each workload (default: 12, quick 2, all 20)"
    )
    made.add_argument("--threads", type=int, help="cores of every contender (default: the workload's)")
    return made


def progress(name: str, start: float):
    """A line of progress on stderr, rewritten where that is a terminal."""
    live = sys.stderr.isatty()

    def tell(words: str) -> None:
        line = f"{name}: {words} ({time.monotonic() - start:.0f} s)"
        print(f"\r\033[K{line}" if live else line, end="" if live else "\n", file=sys.stderr, flush=True)

    return tell


def run(workload: Workload, seconds: float, least: int, threads: int | None) -> dict[str, Any]:
    """One workload's record, with when, where and on what it was made."""
    workload = workload if threads is None else replace(workload, threads=threads)
    load = os.getloadavg()[0]
    made = race(workload, seconds, least, progress(workload.name, time.monotonic()))
    if sys.stderr.isatty():
        print("\r\033[K", end="", file=sys.stderr)
    return {**made, **circumstances(), "load_before": round(load, 2)}


def run_many(asked: list[Workload], seconds: float, least: int, threads: int | None) -> int:
    """Workload after workload; what is done is on disk whatever comes next."""
    failed = 0
    for number, workload in enumerate(asked, 1):
        try:
            made = run(workload, seconds, least, threads)
        except ContenderError as error:
            failed += 1
            print(
                f"[{number}/{len(asked)}] {workload.name}: ours failed: {error}", file=sys.stderr, flush=True
            )
            continue
        page.add(made)
        print(f"[{number}/{len(asked)}] {page.in_words(made)}", flush=True)
    page.write_table()
    return 1 if failed else 0


def count_many(names: list[str]) -> None:
    """Print what the programs of these workloads do, on a CPU's code path and on a GPU's."""
    from benchmarks.programs.counts import PATHS, count, counts_table

    print(counts_table({(name, path): count(workloads()[name], path) for name in names for path in PATHS}))


def main(argv: list[str] | None = None) -> int:
    """Run the command and give its exit code: 2 for bad input, 1 where ours failed."""
    arguments, known = parser().parse_args(argv), workloads()
    if arguments.list or arguments.table:
        print("\n".join(known)) if arguments.list else page.write_table()
        return 0
    asked = arguments.counts or [arguments.workload]
    if unknown := [name for name in asked if name is not None and name not in known]:
        option = "--counts" if arguments.counts else "--workload"
        print(
            f"{option}: there is none named {unknown[0]!r}; choose among: {', '.join(known)}.",
            file=sys.stderr,
        )
        return 2
    if arguments.counts:
        count_many(arguments.counts)
        return 0
    if arguments.threads is not None and arguments.threads < 1:
        print(f"--threads: must be 1 or more, got {arguments.threads}.", file=sys.stderr)
        return 2
    if not peers_python().exists():
        print(f"{OURS} has no peers to run beside; run `make bench-setup` once.", file=sys.stderr)
        return 2
    default = 12.0 if arguments.workload else 2.0 if arguments.quick else 20.0
    seconds = default if arguments.seconds is None else arguments.seconds
    least = 2 if arguments.quick else 3
    if not arguments.workload:
        asked = quick() if arguments.quick else known
        return run_many(list(asked.values()), seconds, least, arguments.threads)
    try:
        made = run(known[arguments.workload], seconds, least, arguments.threads)
    except ContenderError as error:
        print(f"{arguments.workload}: ours failed: {error}", file=sys.stderr)
        return 1
    print(json.dumps(made) if arguments.json else page.in_words(made))
    return 0


if __name__ == "__main__":
    sys.exit(main())
