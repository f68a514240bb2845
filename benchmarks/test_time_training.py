"""Generate the tables of docs/guides/test-time-training.md from benchmarks/results/test-time-training.json.

The page gives the command that makes the file. Then run

    python -m benchmarks.test_time_training
"""

import json
import textwrap
from pathlib import Path
from typing import Any

from benchmarks.accuracy.tables import between_markers, table

RESULTS = Path(__file__).parent / "results" / "test-time-training.json"
PAGE = Path(__file__).parents[1] / "docs" / "guides" / "test-time-training.md"


def losses(record: dict[str, Any]) -> str:
    """The loss of every model by quarter of the text and by seed."""
    shown = lambda mean, half: f"{mean:.3f} ± {half:.3f}"
    rows = [
        [
            name,
            *(shown(*cell) for cell in [record["first_chunk"][name], *cells]),
            ", ".join(f"{x:.3f}" for x in record["by_seed"][name]),
        ]
        for name, cells in record["losses"].items()
    ]
    return table(["model", "1st chunk", "1st quarter", "2nd", "3rd", "4th", "all", "by seed"], rows)


def above(record: dict[str, Any]) -> str:
    """How much higher the loss of every other model is than that of test-time training."""
    rows = []
    for name, (mean, half) in record["above_test_time_training"].items():
        shown = f"{mean:+.4f} ± {half:.4f}"
        rows.append([name, f"**{shown}**" if abs(mean) > half else shown])
    return table(["model", "nats a byte"], rows)


def made(record: dict[str, Any]) -> str:
    """The date and the settings of the measurement."""
    s = record["sizes"]
    parameters = f"{record['parameters']:,}".replace(",", " ")
    return textwrap.fill(
        f"Measured {record['date']} with the library of Python {record['python']}: {parameters} parameters, width "
        f"{s['width']}, {s['prefix'] + s['suffix']} blocks of which {s['suffix']} adapts; window and chunks of "
        f"{s['window']} bytes, texts of {s['context']}; {record['updates']} updates of {record['bytes_an_update']} "
        f"bytes, inner step size {record['inner_rate']:g}, {record['pieces']} pieces.",
        width=118,
    )


def write_page() -> None:
    """Write all tables between their markers on the page."""
    record = json.loads(RESULTS.read_text(encoding="utf-8"))
    between_markers(PAGE, "ttt-losses", losses(record))
    between_markers(PAGE, "ttt-above", above(record))
    between_markers(PAGE, "ttt-made", made(record) + "\n")


if __name__ == "__main__":
    write_page()
