"""Time innerloop beside its peers.

python -m benchmarks --workload omniglot --json     one workload, as one JSON object
python -m benchmarks --workload cifar-fs-anil       one workload, as one line of text
python -m benchmarks --list                         list the workloads
python -m benchmarks --quick                        a few, about 3 minutes; updates results.json and the docs
python -m benchmarks --all                          all of them; updates results.json and the docs
python -m benchmarks --table                        rewrite the docs' tables from results.json without timing
python -m benchmarks --counts NAME ...              count kernels, bytes and operations of compiled meta-steps
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
    """The argument parser."""
    made = argparse.ArgumentParser(
        prog="python -m benchmarks", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    what = made.add_mutually_exclusive_group(required=True)
    what.add_argument("--workload", metavar="NAME", help="run one workload")
    what.add_argument("--quick", action="store_true", help="run a few workloads")
    what.add_argument("--all", action="store_true", help="run all workloads")
    what.add_argument("--table", action="store_true", help="rewrite the docs' tables from results.json")
    what.add_argument("--counts", nargs="+", metavar="NAME", help="count what compiled programs do")
    what.add_argument("--list", action="store_true", help="list the workloads")
    made.add_argument("--json", action="store_true", help="with --workload: print one JSON object")
    made.add_argument(
        "--seconds", type=float, help="timed seconds per workload (default: 12; --quick: 2; --all: 20)"
    )
    made.add_argument("--threads", type=int, help="cores per contender (default: set by the workload)")
    return made


def progress(name: str, start: float):
    """Return a function that reports progress on stderr, on one rewritten line if that is a terminal."""
    live = sys.stderr.isatty()

    def tell(words: str) -> None:
        line = f"{name}: {words} ({time.monotonic() - start:.0f} s)"
        print(f"\r\033[K{line}" if live else line, end="" if live else "\n", file=sys.stderr, flush=True)

    return tell


def run(workload: Workload, seconds: float, minimum: int, threads: int | None) -> dict[str, Any]:
    """Run one workload and return its record, with commit, date and machine."""
    workload = workload if threads is None else replace(workload, threads=threads)
    load = os.getloadavg()[0]
    made = race(workload, seconds, minimum, progress(workload.name, time.monotonic()))
    if sys.stderr.isatty():
        print("\r\033[K", end="", file=sys.stderr)
    return {**made, **circumstances(), "load_before": round(load, 2)}


def run_many(asked: list[Workload], seconds: float, minimum: int, threads: int | None) -> int:
    """Run the workloads in turn, saving each result at once, so that an interruption loses at most one."""
    failed = 0
    for number, workload in enumerate(asked, 1):
        try:
            made = run(workload, seconds, minimum, threads)
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
    """Print the cost of these workloads' programs on the CPU and the GPU code path."""
    from benchmarks.programs.counts import PATHS, count, counts_table

    print(counts_table({(name, path): count(workloads()[name], path) for name in names for path in PATHS}))


def main(argv: list[str] | None = None) -> int:
    """Run the command and return its exit code: 2 for bad input, 1 if ours failed."""
    arguments, known = parser().parse_args(argv), workloads()
    if arguments.list or arguments.table:
        print("\n".join(known)) if arguments.list else page.write_table()
        return 0
    asked = arguments.counts or [arguments.workload]
    if unknown := [name for name in asked if name is not None and name not in known]:
        option = "--counts" if arguments.counts else "--workload"
        print(
            f"{option}: unknown workload {unknown[0]!r}; choose among: {', '.join(known)}.", file=sys.stderr
        )
        return 2
    if arguments.counts:
        count_many(arguments.counts)
        return 0
    if arguments.threads is not None and arguments.threads < 1:
        print(f"--threads: must be 1 or more, got {arguments.threads}.", file=sys.stderr)
        return 2
    if not peers_python().exists():
        print(f"{OURS}: the peers are not installed; run `make bench-setup` once.", file=sys.stderr)
        return 2
    default = 12.0 if arguments.workload else 2.0 if arguments.quick else 20.0
    seconds = default if arguments.seconds is None else arguments.seconds
    minimum = 2 if arguments.quick else 3
    if not arguments.workload:
        asked = quick() if arguments.quick else known
        return run_many(list(asked.values()), seconds, minimum, arguments.threads)
    try:
        made = run(known[arguments.workload], seconds, minimum, arguments.threads)
    except ContenderError as error:
        print(f"{arguments.workload}: ours failed: {error}", file=sys.stderr)
        return 1
    print(json.dumps(made) if arguments.json else page.in_words(made))
    return 0


if __name__ == "__main__":
    sys.exit(main())
