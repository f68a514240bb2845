"""Time one MAML-TRPO meta-iteration on 2D navigation (20 tasks, 20 trajectories, H 100) beside PyTorch and NumPy.

python -m benchmarks.rl.meta_iteration                      time both in turn; print one JSON object
python -m benchmarks.rl.meta_iteration --fisher-fraction 1  curvature from all tasks, as in the PyTorch ports
python -m benchmarks.rl.meta_iteration --alone              only ours, without the peer
python -m benchmarks.rl.meta_iteration --write              also write the result and the table in docs/guides/rl.md

Wall seconds are what a user waits; CPU seconds are the cost, also when other work runs at the same time. The peer,
`benchmarks.speed.peers.navigation`, follows the PyTorch ports of MAML. Both use the same settings, shapes and number of
cores, and neither start-up nor compilation is timed. Environment steps are all simulated steps, including those after
a trajectory has ended.
"""

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks.accuracy.measure import FOLDER
from benchmarks.accuracy.tables import ITERATION, write_tables
from benchmarks.provenance import circumstances
from benchmarks.speed.process import ContenderProcess, peers_python
from benchmarks.speed.worker_protocol import serve
from innerloop.config.presets.registry import preset
from innerloop.io.files import write_text
from innerloop.parallel.cpu_devices import use_cores

PRESET = "navigation-maml-trpo"
RECORD = FOLDER / ITERATION
AT_ONCE = 5
"""Iterations in one of our dispatches."""


class Ours:
    """Meta-iterations as a training run dispatches them."""

    def __init__(self, fraction: float, threads: int):
        import jax

        from innerloop.training.experiments.reinforcement import RLExperiment

        use_cores(threads)
        config = preset(PRESET)
        e = RLExperiment(replace(config, rl=replace(config.rl, fisher_fraction=fraction)))
        self.loop, self.wait = e.outer_loop(), jax.block_until_ready
        self.state = self.loop.start(e.init_params(), e.keys().tasks)

    def steps(self, count: int) -> dict[str, Any]:
        """Run about `count` iterations, in whole dispatches (at least one)."""
        dispatches = max(1, count // AT_ONCE)
        begun = time.perf_counter()
        for _ in range(dispatches):
            self.state, _ = self.wait(self.loop.run(self.state, AT_ONCE))
        return {"seconds": time.perf_counter() - begun}


def processes(fraction: float, threads: int, python: Path | None) -> dict[str, list[str]]:
    """The contenders' command lines."""
    settings = [str(fraction), str(threads)]
    found = {"innerloop": [sys.executable, "-m", "benchmarks.rl.meta_iteration", "--serve", *settings]}
    if python is not None:
        found["pytorch"] = [str(python), "-m", "benchmarks.speed.peers.navigation", *settings]
    return found


def timed(commands: dict[str, list[str]], turns: int, iterations: int) -> dict[str, dict[str, float]]:
    """Medians over turns, timing one contender at a time."""
    with tempfile.TemporaryDirectory() as logs:
        running = {name: ContenderProcess(name, argv, Path(logs) / name) for name, argv in commands.items()}
        try:
            for process in running.values():
                process.ask("steps", count=1)
            rows = [
                {name: p.ask("steps", count=iterations) for name, p in running.items()} for _ in range(turns)
            ]
        finally:
            for process in running.values():
                process.close()
    return {name: summary([row[name] for row in rows], iterations) for name in running}


def summary(answers: list[dict[str, Any]], iterations: int) -> dict[str, float]:
    """Seconds per iteration, and environment steps per second."""
    c = preset(PRESET)
    walked = c.outer.meta_batch * (c.inner.steps + 1) * c.rl.trajectories * c.rl.horizon
    wall = [answer["seconds"] / iterations for answer in answers]
    cpu = [answer["cpu_s"] / iterations for answer in answers]
    return {
        "seconds": round(statistics.median(wall), 4),
        "best_seconds": round(min(wall), 4),
        "cpu_seconds": round(statistics.median(cpu), 4),
        "environment_steps_per_second": round(walked / statistics.median(wall)),
    }


def main(argv: list[str] | None = None) -> int:
    """Time the contenders and print the record."""
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument(
        "--fisher-fraction",
        type=float,
        default=preset(PRESET).rl.fisher_fraction,
        help="fraction of the tasks for curvature",
    )
    made.add_argument("--threads", type=int, default=2, help="cores per contender")
    made.add_argument("--turns", type=int, default=5, help="turns per contender")
    made.add_argument("--iterations", type=int, default=AT_ONCE, help="per turn, a multiple of 5")
    made.add_argument("--python", type=Path, default=peers_python(), help="a Python with torch")
    made.add_argument("--alone", action="store_true", help="only ours")
    made.add_argument("--write", action="store_true", help="write the result file and the docs' table")
    made.add_argument("--serve", nargs=2, metavar=("FRACTION", "THREADS"), help=argparse.SUPPRESS)
    a = made.parse_args(argv)
    if a.serve:
        fraction, threads = float(a.serve[0]), int(a.serve[1])
        serve(lambda: Ours(fraction, threads), threads)  # pyright: ignore
        return 0
    if a.iterations % AT_ONCE or min(a.iterations, a.turns, a.threads) < 1 or not 0 < a.fisher_fraction <= 1:
        print(
            "meta_iteration: counts must be 1 or more, --iterations a multiple of 5, --fisher-fraction in (0, 1].",
            file=sys.stderr,
        )
        return 2
    if not a.alone and not a.python.exists():
        print(
            f"meta_iteration: {a.python} does not exist; run `make bench-setup` once, or pass --alone.",
            file=sys.stderr,
        )
        return 2
    load = round(os.getloadavg()[0], 2)
    found = timed(
        processes(a.fisher_fraction, a.threads, None if a.alone else a.python), a.turns, a.iterations
    )
    settings = {
        "fisher_fraction": a.fisher_fraction,
        "threads": a.threads,
        "turns": a.turns,
        "load_before": load,
    }
    ratios = {} if a.alone else ratio(found)
    record = {**found, **ratios, **settings, **circumstances()}
    print(json.dumps(record))
    if a.write:
        write_text(RECORD, json.dumps(record, indent=1) + "\n")
        write_tables(FOLDER)
    return 0


def ratio(found: dict[str, dict[str, float]]) -> dict[str, float]:
    """The peer's time over ours."""
    ours, peer = found["innerloop"], found["pytorch"]
    return {
        name: round(peer[key] / ours[key], 2)
        for name, key in (("ratio", "seconds"), ("cpu_ratio", "cpu_seconds"))
    }


if __name__ == "__main__":
    sys.exit(main())
