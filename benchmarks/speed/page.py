"""Read and write `results.json`, and generate the tables of docs/reference/performance.md from it."""

import json
from pathlib import Path
from textwrap import fill
from typing import Any

from benchmarks.accuracy.tables import table
from benchmarks.speed.process import OURS
from benchmarks.speed.workloads import ALL_PEERS, workloads
from innerloop.errors import InnerloopError
from innerloop.io.files import write_text

HERE = Path(__file__).resolve().parents[1]
RESULTS = HERE / "results.json"
PAGE = HERE.parent / "docs" / "reference" / "performance.md"
WIDTH = 118
"""Characters per line."""
BEGIN, END = "<!-- bench:begin -->", "<!-- bench:end -->"

Record = dict[str, Any]


def load(path: Path = RESULTS) -> dict[str, Record]:
    """Every record by workload, in the order of the workloads; empty if nothing has been measured."""
    found = json.loads(path.read_text()) if path.exists() else {}
    return {name: found[name] for name in workloads() if name in found}


def add(record: Record, path: Path = RESULTS) -> None:
    """Save one record, replacing an older one of the same workload."""
    records = {**load(path), record["workload"]: record}
    ordered = {name: records[name] for name in workloads() if name in records}
    write_text(path, json.dumps(ordered, indent=1) + "\n")


def significant(value: float) -> str:
    """Three significant digits, without an exponent."""
    decimals = 0 if value >= 100 else 1 if value >= 10 else 2 if value >= 1 else 3
    return f"{value:.{decimals}f}"


def grouped(value: float) -> str:
    """A count with spaces between thousands."""
    return f"{value:,.0f}".replace(",", " ") if value >= 100 else significant(value)


def in_words(record: Record) -> str:
    """A record as one line."""
    best = record["best_peer"]
    beside = (
        f", {best} {significant(record['peers_ms'][best])} ms, ratio {record['ratio']:.2f}" if best else ""
    )
    lost = "".join(f"; {name}: {reason}" for name, reason in record["refused"].items())
    return f"{record['workload']}: ours {significant(record['ours_ms'])} ms{beside}{lost}"


def peer_cell(record: Record, name: str) -> str:
    """A peer's milliseconds, the reason why it has none, or a dash if it did not take part."""
    if name in record["peers_ms"]:
        return significant(record["peers_ms"][name])
    reason = record["refused"].get(name)
    if reason is None:
        return "–"
    if reason.startswith("wrong"):
        return "wrong"
    return "out of memory" if "memory" in reason or "-9" in reason else "failed"


def best_memory(record: Record) -> str:
    """Peak memory of the fastest peer in MB."""
    best = record["best_peer"]
    return grouped(record["memory_mb"][best]) if best else "–"


def fraction(record: Record) -> str:
    """The fraction of the machine's measured matrix-product peak."""
    return "–" if record["fraction_of_peak"] is None else f"{record['fraction_of_peak']:.2f}"


def ratio(record: Record) -> str:
    """The fastest peer's time over ours."""
    return "–" if record["ratio"] is None else f"**{record['ratio']:.2f}**"


def training_table(records: list[Record]) -> str:
    """Milliseconds per meta-step of all contenders."""
    header = [
        "workload",
        "ours, ms",
        *ALL_PEERS,
        "ratio",
        "tasks/s",
        "memory, MB",
        "best peer's, MB",
        "compile, s",
        "of peak",
    ]
    rows = [
        [
            r["workload"],
            significant(r["ours_ms"]),
            *(peer_cell(r, name) for name in ALL_PEERS),
            ratio(r),
            grouped(r["tasks_per_second"][OURS]),
            grouped(r["memory_mb"][OURS]),
            best_memory(r),
            f"{r['compile_s']:.1f}",
            fraction(r),
        ]
        for r in records
    ]
    return table(header, rows)


def sampling_table(records: list[Record]) -> str:
    """Tasks drawn per second."""
    header = ["workload", "ours, tasks/s", "NumPy indexing, tasks/s", "ratio"]
    rows = []
    for r in records:
        rates = dict(r["tasks_per_second"])
        ours = rates.pop(OURS)
        rows.append([r["workload"], grouped(ours), *(grouped(v) for v in rates.values()), ratio(r)])
    return table(header, rows)


def settings(records: list[Record]) -> str:
    """Machine, threads, versions, commits, dates and load."""
    each = lambda name: ", ".join(sorted({str(r[name]) for r in records}))
    versions = sorted({f"{k} {v}" for r in records for k, v in r["versions"].items()})
    dates = sorted(r["date"] for r in records)
    loads = [r["load_before"] for r in records]
    peaks = [r["peak_gflops"] for r in records if r["peak_gflops"]]
    lines = [
        f"Processor: {each('processor')}; threads of every contender: {each('threads')}",
        f"Versions: Python {each('python')}, {', '.join(versions)}; commit {each('commit')}",
        f"Dates: {dates[0]} to {dates[-1]}",
        f"Load average before each workload: {min(loads):.1f} to {max(loads):.1f}"
        + (
            " (other work ran at the same time: compare the ratios, not the times)"
            if max(loads) > 1.5
            else ""
        ),
    ]
    if peaks:
        lines.append(f"Measured matrix-product peak: {min(peaks):.0f} to {max(peaks):.0f} GFLOP/s")
    return "\n".join(fill(f"- {line}", WIDTH, subsequent_indent="  ") for line in lines) + "\n"


def tables(records: dict[str, Record]) -> str:
    """Generate all tables from the records."""
    if not records:
        return "Nothing was measured yet.\n"
    everything = list(records.values())
    training = [r for r in everything if r["kind"] == "training"]
    sweep = lambda r: "-steps-" in r["workload"] or "-tasks-" in r["workload"]
    parts = [("", settings(everything))]
    parts.append(("## A meta-step", training_table([r for r in training if not sweep(r)])))
    parts.append(("## Inner steps and tasks", training_table([r for r in training if sweep(r)])))
    parts.append(("## Drawing tasks", sampling_table([r for r in everything if r["kind"] != "training"])))
    return "\n".join(f"{head}\n\n{text}" if head else text for head, text in parts if text.count("\n") > 2)


def between_markers(page: str, text: str) -> str:
    """The page with `text` between its markers. Raises InnerloopError unless each occurs once, in order."""
    if page.count(BEGIN) != 1 or page.count(END) != 1 or page.index(END) < page.index(BEGIN):
        raise InnerloopError(
            "docs/reference/performance.md", f"needs {BEGIN} and {END} once each, in this order"
        )
    head, rest = page.split(BEGIN)
    return f"{head}{BEGIN}\n\n{text}\n{END}{rest.split(END)[1]}"


def write_table(results: Path = RESULTS, page: Path = PAGE) -> None:
    """Write the tables to the page."""
    write_text(page, between_markers(page.read_text(), tables(load(results))))
