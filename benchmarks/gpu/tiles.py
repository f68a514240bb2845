"""Which tiles of the Pallas kernels are fastest on the GPU that is here, for the shapes of the workloads.

python -m benchmarks.gpu.tiles                     time all candidates, write what the library chooses by
python -m benchmarks.gpu.tiles --dry               a few, tiny, in Pallas's interpreter on a CPU; writes nothing

Candidates are compiled side by side and then timed in turn. One whose result is wrong is never chosen.
"""

import argparse
import functools
import json
import os
import random
import sys
import tempfile
import time
from dataclasses import asdict
from itertools import product
from pathlib import Path
from typing import Any

from benchmarks.speed.process import ContenderError, ContenderProcess
from benchmarks.speed.worker_protocol import serve
from innerloop.io.files import write_text
from innerloop.nn.kernels.pallas_tiles import MEASURED, Tiles

SHAPES = {
    "deep-narrow": [(4, 75, 42, 32, 32, 1)],
    "deep-wide": [(32, 75, 14, 64, 64, 2)],
    "flat-narrow": [(4, 75, 84, 3, 32, 1)],
    "flat-wide": [(32, 75, 28, 1, 64, 2)],
}
"""Tasks, examples, side, channels, filters and stride of the workloads' largest layers, by kind."""

MAPS = ("conv", "kernel_gradient", "input_gradient")
PRECISIONS = {"float32": "highest", "tf32": "tensorfloat32"}
"""Those that have tiles of their own, as `jax.default_matmul_precision` takes them."""

ALLOWED = {"float32": 1e-5, "tf32": 2e-3}
"""Relative errors of a right result."""

REPEATS, TURNS = 8, 4
PATIENCE, COMPILING = 120.0, 0.6
"""Seconds of all, and the share of them after which nothing more is compiled."""


def candidates(name: str, precision: str, of: str) -> list[Tiles]:
    """What is tried for a map."""
    sizes = [(16, 1), (32, 1), (32, 2), (64, 2), (64, 4), (128, 4), (128, 8)]
    sizes = sizes[:5] if name == "kernel_gradient" else sizes[1:]
    stages = (1,) if of.startswith("flat") and name != "kernel_gradient" else (1, 3)
    found = [
        Tiles(rows, 32, filters, warps, ahead, products)
        for (rows, warps), ahead, products in product(
            sizes, stages, ("x3", "ieee") if precision == "float32" else ("ieee",)
        )
        for filters in ((32, 64) if of.endswith("wide") and rows <= 32 else (64,))
    ]
    return [t for t in found if not (t.products == "ieee" and precision == "float32" and t.rows > 64)]


def jobs(dry: bool) -> list[dict[str, Any]]:
    """Every candidate with its shapes."""
    found = []
    for of, precision, name in product(SHAPES, PRECISIONS, MAPS):
        if name == "input_gradient" and of.startswith("flat"):
            continue  # images are no parameters
        key = f"{name} {precision} {of}"
        found += [{"key": key, "tiles": asdict(t)} for t in candidates(name, precision, of)]
    found.sort(key=lambda job: (job["key"].split()[0], job["key"].split()[2]))
    return found[:: len(found) // 3] if dry else found


def shares(todo: list[dict[str, Any]], count: int) -> list[list[dict[str, Any]]]:
    """Equal shares, of few kinds each, whose arguments are made once; of every kind some come first."""
    size = -(-len(todo) // count)
    found = [todo[start : start + size] for start in range(0, len(todo), size)]
    for share in found:
        random.Random(0).shuffle(share)
    return found


class Worker:
    """Compiles a share of the candidates, and times them when asked to."""

    def __init__(self) -> None:
        self.ready: list[tuple[dict[str, Any], list[Any]]] = []

    def compile(self, jobs: list[dict[str, Any]], seconds: float, dry: bool) -> dict[str, Any]:
        """Compile as many as so many seconds allow. What does not compile is left out."""
        failed, end = {}, time.monotonic() + seconds
        for job in jobs:
            if time.monotonic() > end:
                failed[json.dumps(job)] = "no time was left"
                continue
            try:
                self.ready.append((job, [self.program(job, shape) for shape in shapes_of(job, dry)]))
            except Exception as error:
                failed[json.dumps(job)] = str(error)[:200]
        return {"failed": failed}

    def program(self, job: dict[str, Any], shape: tuple[int, ...]) -> Any:
        """A compiled candidate, its arguments, and what it should give."""
        import jax

        from innerloop.nn.kernels import pallas_conv

        name, precision, _ = job["key"].split()
        arguments, expected = problem(name, shape)
        ours = getattr(pallas_conv, f"_{name}")
        pallas_conv.tiles_for = lambda *_: Tiles(**job["tiles"])
        own = functools.partial(ours, precision=PRECISIONS[precision], **settings(name, shape))
        return jax.jit(own).lower(*arguments).compile(), arguments, expected

    def times(self) -> dict[str, Any]:
        """Seconds of every candidate, over its shapes together; infinite where a result is wrong."""
        found = []
        for job, programs in self.ready:
            allowed = ALLOWED[job["key"].split()[1]]
            times = [seconds(*one, allowed=allowed) for one in programs]
            found.append({**job, "seconds": sum(times)})
        return {"found": found}


def shapes_of(job: dict[str, Any], dry: bool) -> list[tuple[int, ...]]:
    """The shapes that a candidate is timed on."""
    shapes = SHAPES[job["key"].split()[2]]
    return [(2, 2, 6, *shape[3:]) for shape in shapes] if dry else shapes


def settings(name: str, shape: tuple[int, ...]) -> dict[str, Any]:
    """What a map takes besides arrays."""
    more: dict[str, dict[str, Any]] = {
        "kernel_gradient": {"kernel": 3},
        "input_gradient": {"places": (shape[2],) * 2},
    }
    return {"stride": shape[5], **more.get(name, {})}


@functools.cache
def problem(name: str, shape: tuple[int, ...]) -> tuple[list[Any], Any]:
    """Random arguments of a map, and its result by patches."""
    import jax

    from innerloop.nn.kernels import gpu_conv

    tasks, examples, side, channels, filters, stride = shape
    small = -(-side // stride)
    x, y = (tasks, examples, side, side, channels), (tasks, examples, small, small, filters)
    w = (tasks, 3, 3, channels, filters)
    pair = {"conv": (x, w), "kernel_gradient": (x, y), "input_gradient": (y, w)}[name]
    arrays = [jax.random.normal(jax.random.key(i), size) for i, size in enumerate(pair)]
    by_patches = functools.partial(
        gpu_conv.MAPS[MAPS.index(name)], precision="highest", **settings(name, shape)
    )
    return arrays, jax.jit(by_patches)(*arrays)


def seconds(program: Any, arguments: list[Any], expected: Any, allowed: float) -> float:
    """The least time of a run among several; infinite for a wrong result."""
    import jax
    import jax.numpy as jnp

    error = jnp.linalg.norm((program(*arguments) - expected).ravel()) / jnp.linalg.norm(expected.ravel())
    if not float(error) < allowed:
        return float("inf")
    turns = []
    for _ in range(TURNS):
        begun = time.perf_counter()
        jax.block_until_ready([program(*arguments) for _ in range(REPEATS)])
        turns.append((time.perf_counter() - begun) / REPEATS)
    return min(turns)


def measured(dry: bool, seconds: float) -> list[dict[str, Any]]:
    """All candidates with their times, within so many seconds."""
    end, count = time.monotonic() + seconds, 1 if dry else max(1, min((os.cpu_count() or 1) - 2, 14))
    todo = shares(jobs(dry), count)
    shared = {"JAX_PLATFORMS": "cpu"} if dry else {"XLA_PYTHON_CLIENT_PREALLOCATE": "false"}
    with tempfile.TemporaryDirectory(prefix="innerloop-tiles-") as folder:
        argv = [sys.executable, "-m", "benchmarks.gpu.tiles", "--worker"]
        workers = [
            ContenderProcess(f"tiles {i}", argv, Path(folder) / f"{i}.log", shared) for i in range(len(todo))
        ]
        try:
            for share, worker in zip(todo, workers, strict=True):
                worker.send("compile", jobs=share, seconds=COMPILING * seconds, dry=dry)
            for worker in workers:
                for job, why in worker.receive(max(1.0, end - time.monotonic()))["failed"].items():
                    print(f"left out: {job}: {why}", file=sys.stderr)
            found = []
            for worker in workers:
                worker.send("times")
                found += worker.receive(max(1.0, end - time.monotonic()))["found"]
            return found
        finally:
            for worker in workers:
                worker.process.kill()
                worker.close()


def best(found: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """The fastest right candidate of every map, precision and kind."""
    chosen: dict[str, dict[str, Any]] = {}
    for one in sorted(found, key=lambda one: one["seconds"]):
        if one["seconds"] < float("inf"):
            chosen.setdefault(one["key"], one["tiles"])
    return chosen


def main(words: list[str] | None = None) -> int:
    """Run the command."""
    asked = argparse.ArgumentParser(
        prog="python -m benchmarks.gpu.tiles",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    asked.add_argument("--dry", action="store_true", help="a few, tiny, on a CPU")
    asked.add_argument("--seconds", type=float, default=PATIENCE, help="of all together, at most")
    asked.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    chosen = asked.parse_args(words)
    if chosen.worker:
        serve(Worker, os.cpu_count() or 1)
        return 0
    try:
        found = measured(chosen.dry, chosen.seconds)
    except ContenderError as error:
        print(f"tiles: {error}", file=sys.stderr)
        return 1
    for one in sorted(found, key=lambda one: (one["key"], one["seconds"])):
        print(f"{1e6 * one['seconds']:9.1f} us  {one['key']}  {json.dumps(one['tiles'])}")
    if not chosen.dry:
        known = json.loads(MEASURED.read_text()) | best(found)
        write_text(MEASURED, json.dumps(dict(sorted(known.items())), indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
