"""Find the fastest tiles of the Pallas kernels on this GPU, for the shapes of the workloads.

python -m benchmarks.gpu.tiles                     time all candidates; write the library's tile table and a result file
python -m benchmarks.gpu.tiles --dry               a few tiny ones in Pallas's interpreter on a CPU; writes nothing

Candidates compile in parallel and are then timed in turn, beside the same map by patches. A candidate with a wrong
result is never chosen.
"""

import argparse
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

from benchmarks.accuracy.tables import between_markers, table
from benchmarks.gpu.page import FOLDER, slug
from benchmarks.gpu.tiles_shapes import MAPS, PRECISIONS, SHAPES
from benchmarks.provenance import circumstances
from benchmarks.speed.page import PAGE
from benchmarks.speed.process import ContenderError, ContenderProcess
from innerloop.io.files import write_text
from innerloop.nn.kernels.pallas_tiles import MEASURED, Tiles

PATIENCE, COMPILING = 120.0, 0.6
"""Seconds in total, and the share of them for compiling."""


def candidates(name: str, precision: str, of: str) -> list[Tiles]:
    """The tiles to try for a map."""
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
    """Every candidate; those without tiles compute the map by patches."""
    found = []
    for of, precision, name in product(SHAPES, PRECISIONS, MAPS):
        if name == "input_gradient" and of.startswith("flat"):
            continue  # images need no gradient
        key = f"{name} {precision} {of}"
        found += [{"key": key, "tiles": t and asdict(t)} for t in (None, *candidates(name, precision, of))]
    found.sort(key=lambda job: (job["key"].split()[0], job["key"].split()[2]))
    return found[:: len(found) // 3] if dry else found


def shares(todo: list[dict[str, Any]], count: int) -> list[list[dict[str, Any]]]:
    """Split into equal shares with few kinds each, so that arguments are shared, and shuffle each share."""
    size = -(-len(todo) // count)
    found = [todo[start : start + size] for start in range(0, len(todo), size)]
    for share in found:
        random.Random(0).shuffle(share)
    return found


def measured(dry: bool, seconds: float) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The device, and the times of all candidates that finish within `seconds`."""
    end, count = time.monotonic() + seconds, 1 if dry else max(1, min((os.cpu_count() or 1) - 2, 14))
    todo = shares(jobs(dry), count)
    shared = {"JAX_PLATFORMS": "cpu"} if dry else {"XLA_PYTHON_CLIENT_PREALLOCATE": "false"}
    with tempfile.TemporaryDirectory(prefix="innerloop-tiles-") as folder:
        argv = [sys.executable, "-m", "benchmarks.gpu.tiles_worker", str(os.cpu_count() or 1)]
        workers = [
            ContenderProcess(f"tiles {i}", argv, Path(folder) / f"{i}.log", shared) for i in range(len(todo))
        ]
        try:
            for share, worker in zip(todo, workers, strict=True):
                worker.send("compile", jobs=share, seconds=COMPILING * seconds, dry=dry)
            device: dict[str, Any] = {}
            living, found = [], []
            for worker in workers:
                if answer := answered(worker, end):
                    living.append(worker)
                    for job, why in answer["failed"].items():
                        print(f"left out: {job}: {why}", file=sys.stderr)
            for worker in living:
                worker.send("times")
                found += answered(worker, end).get("found", [])
            for worker in living:
                worker.send("device")
                device = device or answered(worker, end)
            return device, found
        finally:
            for worker in workers:
                worker.process.kill()
                worker.close()


def answered(worker: ContenderProcess, end: float) -> dict[str, Any]:
    """A worker's answer; empty, with a message, if it died or is late."""
    try:
        return worker.receive(max(1.0, end - time.monotonic()))
    except ContenderError as error:
        print(f"{worker.name} is left out: {error}", file=sys.stderr)
        return {}


def best(found: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """The fastest correct candidate for every map, precision and kind, and the time by patches, in microseconds."""
    chosen: dict[str, dict[str, Any]] = {}
    for one in sorted(found, key=lambda one: one["seconds"]):
        if one["seconds"] < float("inf"):
            us = round(1e6 * one["seconds"], 1)
            new = {"us": us, "tiles": one["tiles"]} if one["tiles"] else {"patches_us": us}
            kept = chosen.setdefault(one["key"], {})
            kept.update({name: value for name, value in new.items() if name not in kept})
    return dict(sorted(chosen.items()))


def write(device: dict[str, Any], chosen: dict[str, dict[str, Any]]) -> None:
    """Write the library's tile table, the result file, and the docs' table."""
    tiles = {key: one["tiles"] for key, one in chosen.items() if "tiles" in one}
    known = json.loads(MEASURED.read_text()) | tiles
    write_text(MEASURED, json.dumps(dict(sorted(known.items())), indent=1) + "\n")
    record = {name: device[name] for name in ("device", "jax")} | {**circumstances(), "maps": chosen}
    write_text(FOLDER / f"tiles-{slug(device['device'])}.json", json.dumps(record, indent=1) + "\n")
    write_table()


def write_table() -> None:
    """Write the tables to the page."""
    records = [json.loads(path.read_text()) for path in sorted(FOLDER.glob("tiles-*.json"))]
    between_markers(PAGE, "gpu-tiles", "\n".join(map(of_device, records)))


def of_device(record: dict[str, Any]) -> str:
    """A device's times for convolutions by patches and by Pallas."""
    rows = []
    for key, one in record["maps"].items():
        name, precision, of = key.split()
        tasks, examples, side, channels, filters, stride = SHAPES[of][0]
        shape = f"{tasks} x {examples}, {side} x {side}, {channels} to {filters}, stride {stride}"
        times = [f"{one[n]:.0f}" if n in one else "–" for n in ("patches_us", "us")]
        ratio = f"**{one['patches_us'] / one['us']:.1f}**" if {"us", "patches_us"} <= set(one) else "–"
        rows.append([name.replace("_", " "), precision, shape, *times, ratio])
    header = ["map", "precision", "images, channels to filters", "patches, us", "Pallas, us", "ratio"]
    return f"{record['device']}, JAX {record['jax']}, {record['date']}:\n\n{table(header, rows)}"


def main(words: list[str] | None = None) -> int:
    """Run the command."""
    asked = argparse.ArgumentParser(
        prog="python -m benchmarks.gpu.tiles",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    asked.add_argument("--dry", action="store_true", help="a few tiny candidates on a CPU")
    asked.add_argument("--seconds", type=float, default=PATIENCE, help="time limit")
    asked.add_argument("--table", action="store_true", help="only write the table, from the result files")
    chosen = asked.parse_args(words)
    if chosen.table:
        write_table()
        return 0
    device, found = measured(chosen.dry, chosen.seconds)
    if not found:
        print("tiles: nothing was timed", file=sys.stderr)
        return 1
    for one in sorted(found, key=lambda one: (one["key"], one["seconds"])):
        print(f"{1e6 * one['seconds']:9.1f} us  {one['key']}  {json.dumps(one['tiles'])}")
    if not chosen.dry:
        write(device, best(found))
    return 0


if __name__ == "__main__":
    sys.exit(main())
