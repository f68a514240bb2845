"""Measure several processes on this machine, and extrapolate to more devices with a cost model.

python -m benchmarks.scaling.measure              time and bytes of a meta-step for 1, 2 and 4 processes
python -m benchmarks.scaling.measure --equality   compare the bits of runs in one process and in several
python -m benchmarks.scaling.measure --restarts   stop on 4 processes and resume on 1, 2, 4 and 8
python -m benchmarks.scaling.measure --losses     seconds until the others stop when a process is killed or hangs
python -m benchmarks.scaling.measure --all        all of the above
python -m benchmarks.scaling.measure --table      only write the tables of docs/guides/scale.md, from the result file

If the system permits, the processes run in their own network namespace, so that the loopback counts only their bytes.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.provenance import circumstances
from benchmarks.scaling import fault_tolerance, page
from benchmarks.scaling.launch import WAIT, free_port
from innerloop.io.files import write_text

RESULTS = Path(__file__).parents[1] / "results" / "scaling.json"
COUNTS = (1, 2, 4)
WORKLOADS = ("sinusoid", "omniglot")
OWN_NETWORK = ["unshare", "--net", "sh", "-c", 'ip link set lo up && exec "$@"', "sh"]


def own_network() -> list[str]:
    """The command prefix that gives a command its own loopback; empty if that is not permitted."""
    try:
        done = subprocess.run([*OWN_NETWORK, "true"], capture_output=True)
    except OSError:
        return []
    return [] if done.returncode else OWN_NETWORK


def measured(workload: str, count: int, before: list[str]) -> dict[str, Any]:
    """Measure one row: `count` processes on one workload."""
    port = free_port()
    worker = f"{sys.executable} -m benchmarks.scaling.worker {workload} {count}"
    script = "".join(f"{worker} {index} {port} & " for index in range(1, count)) + f"{worker} 0 {port}; wait"
    done = subprocess.run([*before, "sh", "-c", script], capture_output=True, text=True, timeout=2 * WAIT)
    lines = [line for line in done.stdout.splitlines() if line.startswith("RESULT ")]
    if len(lines) != 1:
        raise RuntimeError(done.stdout + done.stderr)
    return json.loads(lines[0].removeprefix("RESULT ")) | {"load": round(os.getloadavg()[0], 1)}


def speed(folder: Path) -> dict[str, Any]:
    """Measure all workloads."""
    before = own_network()
    rows = {name: [measured(name, count, before) for count in COUNTS] for name in WORKLOADS}
    return {"rows": rows, "own_network": bool(before), "cores": len(os.sched_getaffinity(0))}


PARTS: dict[str, Callable[[Path], Any]] = {
    "speed": speed,
    "equality": fault_tolerance.equality,
    "restarts": fault_tolerance.restarts,
    "losses": fault_tolerance.losses,
}


def load(path: Path = RESULTS) -> dict[str, Any]:
    """The results so far."""
    return json.loads(path.read_text()) if path.exists() else {}


def main(argv: list[str] | None = None) -> int:
    """Measure what was asked for, and write the tables."""
    reader = argparse.ArgumentParser(
        prog="python -m benchmarks.scaling.measure",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    for name in (*PARTS, "all", "table"):
        reader.add_argument(f"--{name}", action="store_true")
    asked = {name for name, given in vars(reader.parse_args(argv)).items() if given} or {"speed"}
    for name, part in PARTS.items():
        if name in asked or "all" in asked:
            with tempfile.TemporaryDirectory(prefix="innerloop-scaling-") as folder:
                found = {**load(), name: {"measured": part(Path(folder)), **circumstances()}}
            write_text(RESULTS, json.dumps(found, indent=1) + "\n")
            print(f"{name}: done", flush=True)
    page.write(load())
    return 0


if __name__ == "__main__":
    sys.exit(main())
