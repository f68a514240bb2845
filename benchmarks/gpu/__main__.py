"""Time innerloop beside PyTorch on one GPU, in under eight minutes.

python -m benchmarks.gpu                    measure; write the result file and the docs' table
python -m benchmarks.gpu --dry              the same with tiny shapes on a CPU; prints the table and writes nothing
python -m benchmarks.gpu --seconds 200      in less time; reports what is left out
python -m benchmarks.gpu --table            only write the docs' table, from the existing result files

If PyTorch is in this environment or in that of `make bench-setup`, its gradients are checked and it is timed as well.
"""

import argparse
import contextlib
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.gpu import page
from benchmarks.gpu.cases import CASES, Case, cases
from benchmarks.gpu.clock import Clock
from benchmarks.gpu.programs import Programs
from benchmarks.gpu.race import OUT_OF_TIME, GpuRace
from benchmarks.gpu.worker import OURS, TORCH, Worker
from benchmarks.provenance import circumstances
from benchmarks.speed.process import ContenderError
from innerloop.parallel.precision import PRODUCTS

BUDGET, DRY_BUDGET = 440.0, 300.0
"""Seconds; the first leaves time within eight minutes to end the processes."""
ROUNDS, ROUND, COMPILING = len(PRODUCTS) + 1, 4, 0.8
"""Rounds of our programs, the weight of one round in dividing the time, and the share of it for compiling."""
SIZES = {"megabytes": 1024, "side": 8192}
TINY = {"megabytes": 4, "side": 128}


class NoGpuError(Exception):
    """There is no GPU to measure."""


def parser() -> argparse.ArgumentParser:
    """The argument parser."""
    made = argparse.ArgumentParser(
        prog="python -m benchmarks.gpu",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    made.add_argument("--dry", action="store_true", help="tiny shapes on a CPU")
    made.add_argument("--seconds", type=float, help="total time")
    made.add_argument("--table", action="store_true", help="only write the table")
    made.add_argument("--workloads", nargs="+", default=[], choices=[c.workload.name for c in CASES])
    return made


def tell(clock: Clock, name: str) -> Any:
    """Return a function that prints a progress line to stderr."""
    return lambda words: print(f"{clock.passed:4.0f} s  {name}: {words}", file=sys.stderr, flush=True)


def facts_of(workers: dict[str, Worker], dry: bool) -> dict[str, Any]:
    """Devices, versions and rates. Raises ContenderError if ours fails, NoGpuError without a GPU."""
    ours = workers[OURS].ask("device")
    if ours["platform"] == "cpu" and not dry:
        raise NoGpuError("JAX sees no GPU here; `--dry` runs the same with tiny shapes on a CPU.")
    facts = {OURS: ours, "rates": workers[OURS].ask("rates", **(TINY if dry else SIZES)), TORCH: None}
    try:
        facts[TORCH] = workers[TORCH].ask("device")
    except ContenderError as error:
        facts["no_torch"] = f"PyTorch was not timed: {error}"
        print(facts["no_torch"], file=sys.stderr)
    return facts


def measure(chosen: list[Case], seconds: float, dry: bool) -> dict[str, Any]:
    """Measure all workloads within the time. Raises ContenderError if none of ours ran, NoGpuError without a GPU."""
    clock = Clock(seconds, [ROUND] * ROUNDS + [case.weight for case in chosen])
    with tempfile.TemporaryDirectory(prefix="innerloop-gpu-") as folder, contextlib.ExitStack() as stack:
        workers = {name: Worker(name, Path(folder), clock, dry) for name in (OURS, TORCH)}
        for worker in workers.values():
            stack.callback(worker.close)
        facts = facts_of(workers, dry)
        workers[OURS].close()
        programs = Programs(Path(folder), clock, dry)
        stack.callback(programs.close)
        told = {**facts, **facts[OURS]}
        races = [
            GpuRace(case, programs, workers[TORCH], told, clock, tell(clock, case.workload.name))
            for case in chosen
        ]
        for race in races:
            stack.callback(race.close)
        return record(races, programs, facts, clock, dry)


def record(
    races: list[GpuRace], programs: Programs, facts: dict[str, Any], clock: Clock, dry: bool
) -> dict[str, Any]:
    """Fill the record of `measure`: our programs for all workloads round by round, then PyTorch."""
    versions = facts[OURS]["versions"] | (facts[TORCH] or {}).get("versions", {})
    found = {"device": facts[OURS]["device"], "dry": dry, "rates": facts["rates"], "versions": versions}
    found |= {"convolution": facts[OURS]["convolution"], "no_torch": facts.get("no_torch"), **circumstances()}

    def keep() -> None:
        found.update(workloads=[race.record for race in races], seconds=round(clock.passed, 1))
        if not dry:
            page.write_result(found)  # an interruption loses only what follows

    for number in range(ROUNDS):
        clock.begin(number)
        some = [(race.rounds[number], race.case) for race in races if number < len(race.rounds)]
        tell(clock, "compiling")(", ".join(map(str, dict(some))))
        programs.compile(some, COMPILING * clock.turn_left)
        for race in races:
            race.race_ours(number)
            if race.runs:
                keep()
        programs.close()
    if not any(race.runs for race in races):
        raise ContenderError(next((f"{r.w.name}: {r.failed}" for r in races if r.failed), OUT_OF_TIME))
    for race in races:  # before the first peer, because the references would take its cores
        race.attempt("float64", race.compare_with_double)
    for number, race in enumerate(races):
        clock.begin(ROUNDS + number)
        race.race_peers()
        keep()
    found["failed"] = {race.w.name: race.failed for race in races if race.failed}
    return found


def main(words: list[str] | None = None) -> int:
    """Run the command and return its exit code: 2 for bad input, 1 if ours failed."""
    asked = parser().parse_args(words)
    if asked.table:
        page.write_table()
        return 0
    seconds = asked.seconds if asked.seconds is not None else DRY_BUDGET if asked.dry else BUDGET
    if not seconds > 0:
        print(f"--seconds: must be above 0, got {seconds:g}.", file=sys.stderr)
        return 2
    begun = time.monotonic()
    try:
        found = measure(cases(asked.dry, tuple(asked.workloads)), seconds, asked.dry)
    except NoGpuError as error:
        print(error, file=sys.stderr)
        return 2
    except ContenderError as error:
        print(f"ours failed: {error}", file=sys.stderr)
        return 1
    print(page.of_device(found))
    if not asked.dry:
        page.write_table()
    print(f"{time.monotonic() - begun:.0f} s in all", file=sys.stderr)
    for name, why in found["failed"].items():
        print(f"ours failed: {name}: {why}", file=sys.stderr)
    return 1 if found["failed"] else 0


if __name__ == "__main__":
    sys.exit(main())
