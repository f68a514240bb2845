"""The GPUs' result files, and the tables of docs/reference/performance.md generated from them."""

import json
import re
from pathlib import Path
from textwrap import fill
from typing import Any

from benchmarks.accuracy.tables import between_markers, table
from benchmarks.gpu.cases import METHODS
from benchmarks.speed.page import PAGE, WIDTH, grouped, significant
from innerloop.io.files import write_text

FOLDER = Path(__file__).resolve().parents[1] / "results"
MARKER = "gpu"
PEERS = [(method, graph) for graph in (False, True) for method in METHODS]

Record = dict[str, Any]


def result_path(device: str) -> Path:
    """A device's result file."""
    return FOLDER / f"gpu-{slug(device)}.json"


def slug(device: str) -> str:
    """A device's name as part of a file name."""
    return re.sub(r"[^a-z0-9]+", "-", device.lower()).strip("-")


def write_result(record: Record) -> None:
    """Write a device's result file."""
    write_text(result_path(record["device"]), json.dumps(record, indent=1) + "\n")


def load() -> list[Record]:
    """Every device's record."""
    return [json.loads(path.read_text()) for path in sorted(FOLDER.glob("gpu-*.json"))]


def write_table() -> None:
    """Write the tables to the page."""
    between_markers(PAGE, MARKER, tables(load()))


def tables(records: list[Record]) -> str:
    """The tables of all devices."""
    return "\n".join(map(of_device, records)) if records else "There is no result of `make bench-gpu` yet.\n"


def of_device(record: Record) -> str:
    """Settings, the times of all contenders, and our programs beside the roofline."""
    parts = [f"### {record['device']}", settings(record), times_table(record), roofline_table(record)]
    if any(workload["left_out"] for workload in record["workloads"]):
        parts.append(left_out(record))
    return "\n".join(f"{part}\n" if part.startswith("###") else part for part in parts)


def left_out(record: Record) -> str:
    """List what was not timed, grouped by reason."""
    by_reason: dict[tuple[str, str], list[str]] = {}
    for workload in record["workloads"]:
        for name, reason in workload["left_out"].items():
            by_reason.setdefault((workload["workload"], reason), []).append(name)
    lines = [f"- `{w}`, {reason}: {'; '.join(names)}" for (w, reason), names in by_reason.items()]
    return (
        "Left out:\n\n"
        + "\n".join(fill(line, WIDTH, subsequent_indent="  ", break_on_hyphens=False) for line in lines)
        + "\n"
    )


def settings(record: Record) -> str:
    """Versions, commit, date and measured rates."""
    versions = ", ".join(f"{name} {version}" for name, version in record["versions"].items())
    rates, products = record["rates"], record["rates"]["products"]
    told = ", ".join(f"{rate / 1e12:.3g} TFLOP/s in {precision}" for precision, rate in products.items())
    lines = [
        f"Versions: Python {record['python']}, {versions}; commit {record['commit'] or 'unknown'}",
        f"Date: {record['date']}; {record['seconds']:.0f} s in all",
        f"Measured rates: copy {rates['copy'] / 1e9:.3g} GB/s; products {told}",
    ]
    if record["no_torch"]:
        lines.append(record["no_torch"])
    return "\n".join(fill(f"- {line}", WIDTH, subsequent_indent="  ") for line in lines) + "\n"


def ours(workload: Record) -> list[Record]:
    """Our runs, by precision."""
    return [run for run in workload["runs"] if run["by"] == "innerloop"]


def kind(run: Record, default: str) -> str:
    """The precision of one of our runs, and its convolution if that is not the default."""
    return run["precision"] + (f", {run['convolution']}" if run["convolution"] != default else "")


def peers(workload: Record, precision: str) -> dict[tuple[str, bool], Record]:
    """PyTorch's runs in one precision, by method and whether it uses a CUDA graph."""
    found = [r for r in workload["runs"] if r["by"] != "innerloop" and r["precision"] == precision]
    return {(r["by"], r["graph"]): r for r in found}


def megabytes(run: Record | None) -> str:
    """Peak memory."""
    return "–" if run is None or run["memory_mb"] is None else grouped(run["memory_mb"])


def times_table(record: Record) -> str:
    """Milliseconds per meta-step of all contenders, one row per precision."""
    names = [f"{method}, graph" if graph else method for method, graph in PEERS]
    header = ["workload", "precision", "ours, ms", *names, "ratio", "memory, MB", "best peer's, MB"]
    rows = [
        times_row(workload, run, peers(workload, run["precision"]), kind(run, record["convolution"]))
        for workload in record["workloads"]
        for run in ours(workload)
    ]
    return table([*header, "compile, s", "error"], rows)


def times_row(workload: Record, run: Record, beside: dict[tuple[str, bool], Record], name: str) -> list[str]:
    """One row: ours, the peers in the same precision, and the fastest peer's time over ours."""
    best = min(beside.values(), key=lambda r: r["ms"], default=None)
    cells = [significant(beside[peer]["ms"]) if peer in beside else "–" for peer in PEERS]
    ratio = f"**{best['ms'] / run['ms']:.2f}**" if best else "–"
    error = f"{run['error']:.1e}" if "error" in run else "–"
    row = [workload["workload"], name, significant(run["ms"]), *cells, ratio]
    return [*row, megabytes(run), megabytes(best), f"{run['compile_s']:.1f}", error]


def roofline_table(record: Record) -> str:
    """Our measured times beside the lower bounds from the measured rates."""
    header = ["workload", "precision", "kernels", "loop passes", "GFLOP", "GB", "at the products' rate, ms"]
    rows = []
    for workload in record["workloads"]:
        for run in ours(workload):
            cost, minimum = run["cost"], run["roofline"]
            counts = [f"{cost['kernels']:.0f}", f"{cost['loops']:.0f}"]
            sizes = [f"{cost[name] / 1e9:.3g}" for name in ("operations", "bytes")]
            times = [
                significant(minimum["product_ms"]),
                significant(minimum["copy_ms"]),
                significant(run["ms"]),
            ]
            name = kind(run, record["convolution"])
            rows.append([workload["workload"], name, *counts, *sizes, *times, f"{minimum['share']:.2f}"])
    return table([*header, "at the copy's rate, ms", "measured, ms", "share"], rows)
