"""Compile and time tiles of the Pallas kernels: `python -m benchmarks.gpu.tiles_worker CORES`."""

import functools
import json
import sys
import time
from typing import Any
from unittest import mock

import jax
import jax.numpy as jnp

from benchmarks.gpu.tiles_shapes import ALLOWED, MAPS, PRECISIONS, SHAPES
from benchmarks.speed.worker_protocol import serve
from innerloop.nn.kernels import gpu_conv, pallas_conv
from innerloop.nn.kernels.pallas_tiles import Tiles

REPEATS, TURNS = 8, 4


class Worker:
    """Compiles a share of the candidates, and times them on request."""

    def __init__(self) -> None:
        self.ready: list[tuple[dict[str, Any], list[Any]]] = []

    def device(self) -> dict[str, Any]:
        """The device and JAX's version."""
        return {"device": jax.devices()[0].device_kind, "jax": jax.__version__}

    def compile(self, jobs: list[dict[str, Any]], seconds: float, dry: bool) -> dict[str, Any]:
        """Compile as many jobs as fit into `seconds`; return those that failed, with the reason."""
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
        """A compiled candidate, its arguments, and the expected result."""
        name, precision, _ = job["key"].split()
        arguments, expected = problem(name, shape)
        own = getattr(pallas_conv, f"_{name}") if job["tiles"] else gpu_conv.MAPS[MAPS.index(name)]
        own = functools.partial(own, precision=PRECISIONS[precision], **settings(name, shape))
        with mock.patch.object(pallas_conv, "tiles_for", return_value=job["tiles"] and Tiles(**job["tiles"])):
            return jax.jit(own).lower(*arguments).compile(), arguments, expected

    def times(self) -> dict[str, Any]:
        """Seconds of every candidate, summed over its shapes; infinite if a result is wrong."""
        found = []
        for job, programs in self.ready:
            allowed = ALLOWED[job["key"].split()[1]]
            try:
                times = [seconds(*one, allowed=allowed) for one in programs]
            except Exception:  # a candidate that fails in any way is not the fastest
                times = [float("inf")]
            found.append({**job, "seconds": sum(times)})
        return {"found": found}


def shapes_of(job: dict[str, Any], dry: bool) -> list[tuple[int, ...]]:
    """The shapes to time a candidate on."""
    shapes = SHAPES[job["key"].split()[2]]
    return [(2, 2, 6, *shape[3:]) for shape in shapes] if dry else shapes


def settings(name: str, shape: tuple[int, ...]) -> dict[str, Any]:
    """A map's arguments other than arrays."""
    more: dict[str, dict[str, Any]] = {
        "kernel_gradient": {"kernel": 3},
        "input_gradient": {"places": (shape[2],) * 2},
    }
    return {"stride": shape[5], **more.get(name, {})}


@functools.cache
def problem(name: str, shape: tuple[int, ...]) -> tuple[list[Any], Any]:
    """Random arguments for a map, and its result by patches."""
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
    """The shortest time per run over several turns; infinite for a wrong result."""

    error = jnp.linalg.norm((program(*arguments) - expected).ravel()) / jnp.linalg.norm(expected.ravel())
    if not float(error) < allowed:
        return float("inf")
    turns = []
    for _ in range(TURNS):
        begun = time.perf_counter()
        jax.block_until_ready([program(*arguments) for _ in range(REPEATS)])
        turns.append((time.perf_counter() - begun) / REPEATS)
    return min(turns)


if __name__ == "__main__":
    serve(Worker, int(sys.argv[1]))
