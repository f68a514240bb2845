"""The tables of docs/guides/adapters.md, from benchmarks/results/adapters.json alone.

The file is made by `python -m examples.adapters --debian --out benchmarks/results/adapters.json`; then

    python -m benchmarks.adapters
"""

import json
import textwrap
from pathlib import Path
from typing import Any

from benchmarks.accuracy.tables import between_markers, table

RESULTS = Path(__file__).parent / "results" / "adapters.json"
PAGE = Path(__file__).parents[1] / "docs" / "guides" / "adapters.md"
METHODS = {
    "nearest mean": "nearest class mean",
    "logistic regression": "logistic regression",
    "ANIL": "ANIL",
    "LoRA-MAML": "LoRA-MAML",
    "nearest mean, ANIL's embeddings": "nearest class mean, ANIL's embeddings",
    "logistic regression, ANIL's embeddings": "logistic regression, ANIL's embeddings",
}
"""The methods by their names in the result file, in the order of the rows."""


def accuracy(record: dict[str, Any], shots: str) -> str:
    """All methods; the difference to logistic regression is bold where its interval excludes 0."""
    rows = []
    for name, title in METHODS.items():
        found = record["shots"][shots]["methods"][name]
        mean, half = found["accuracy"]
        difference, width = found["minus_logistic_regression"]
        shown = f"{100 * difference:+.1f} ± {100 * width:.1f}"
        shown = f"**{shown}**" if abs(difference) > width else shown
        shown = "" if name == "logistic regression" else shown
        rows.append([title, f"{100 * mean:.1f} ± {100 * half:.1f}", str(found["tasks"]), shown])
    head = ["method", "accuracy, %", "tasks", "minus logistic regression, same tasks"]
    return table(head, rows)


def labels(record: dict[str, Any]) -> str:
    """Which labels each split has."""
    rows = [[f"{split} ({len(names)})", ", ".join(names)] for split, names in record["labels"].items()]
    return table(["split", "sections"], rows)


def made(record: dict[str, Any]) -> str:
    """When, and by which settings."""
    s, c = record["settings"], record["shots"]
    return textwrap.fill(
        f"Measured {record['date']}: "
        f"{s['updates']} updates of {s['meta_batch']} tasks, which had {s['train_shots']} example"
        f"{'s' if s['train_shots'] > 1 else ''} of each label, for each method; rank {s['rank']}, {s['steps']} inner "
        f"steps of rate {s['rate']:g}, texts cut to {record['tokens']} tokens. C of logistic regression "
        f"was {c['1']['C']:g} for one example and {c['5']['C']:g} for five.",
        width=118,
    )


def write_page() -> None:
    """Write all tables between their markers."""
    record = json.loads(RESULTS.read_text(encoding="utf-8"))
    for shots in ("1", "5"):
        between_markers(PAGE, f"adapters-{shots}", accuracy(record, shots))
    between_markers(PAGE, "adapters-labels", labels(record))
    between_markers(PAGE, "adapters-made", made(record) + "\n")


if __name__ == "__main__":
    write_page()
