"""Generate the tables of docs/guides/adapters.md from its two result files.

`python -m examples.adapters --debian --out benchmarks/results/adapters.json` makes the first; with `--updates 400`
and `--out benchmarks/results/adapters-longer.json` it makes the second. Then run

    python -m benchmarks.adapters
"""

import json
import textwrap
from pathlib import Path
from typing import Any

from benchmarks.accuracy.tables import between_markers, table

RESULTS = Path(__file__).parent / "results"
PAGE = Path(__file__).parents[1] / "docs" / "guides" / "adapters.md"
METHODS = {
    "nearest mean": "nearest class mean",
    "logistic regression": "logistic regression",
    "ANIL": "ANIL",
    "LoRA-MAML": "LoRA-MAML",
    "nearest mean, ANIL's embeddings": "nearest class mean, ANIL's embeddings",
    "logistic regression, ANIL's embeddings": "logistic regression, ANIL's embeddings",
}
"""Names in the result file -> names in the table, in the order of the rows."""


def difference(record: dict[str, Any], shots: str, name: str) -> str:
    """A method's gain over logistic regression; bold if the interval excludes 0."""
    mean, half = record["shots"][shots]["methods"][name]["minus_logistic_regression"]
    shown = f"{100 * mean:+.1f} ± {100 * half:.1f}"
    return f"**{shown}**" if abs(mean) > half else shown


def accuracy(record: dict[str, Any], longer: dict[str, Any], shots: str) -> str:
    """Accuracy of all methods; the last two columns are differences from logistic regression."""
    rows = []
    for name, title in METHODS.items():
        mean, half = record["shots"][shots]["methods"][name]["accuracy"]
        differences = [difference(found, shots, name) for found in (record, longer)]
        differences[1] = differences[1] if "ANIL" in name or "LoRA" in name else ""
        shown = ["", ""] if name == "logistic regression" else differences
        rows.append([title, f"{100 * mean:.1f} ± {100 * half:.1f}", *shown])
    many = longer["settings"]["updates"]
    return table(["method", "accuracy, %", "minus logistic regression", f"after {many} updates"], rows)


def labels(record: dict[str, Any]) -> str:
    """The labels of each split."""
    rows = [[f"{split} ({len(names)})", ", ".join(names)] for split, names in record["labels"].items()]
    return table(["split", "sections"], rows)


def made(record: dict[str, Any]) -> str:
    """The date and the settings of the measurement."""
    s, c = record["settings"], record["shots"]
    return textwrap.fill(
        f"Measured {record['date']}: "
        f"{s['updates']} updates of {s['meta_batch']} tasks, which had {s['train_shots']} example"
        f"{'s' if s['train_shots'] > 1 else ''} of each label, for each method; rank {s['rank']}, {s['steps']} inner "
        f"steps of rate {s['rate']:g}, texts cut to {record['tokens']} tokens. C of logistic regression "
        f"was {c['1']['C']:g} for one example and {c['5']['C']:g} for five. All methods have seen {s['tasks']} tasks.",
        width=118,
    )


def write_page() -> None:
    """Write all tables between their markers on the page."""
    read = lambda name: json.loads((RESULTS / name).read_text(encoding="utf-8"))
    record, longer = read("adapters.json"), read("adapters-longer.json")
    assert record["digest"] == longer["digest"], "the two result files are of different texts"
    for shots in ("1", "5"):
        between_markers(PAGE, f"adapters-{shots}", accuracy(record, longer, shots))
    between_markers(PAGE, "adapters-labels", labels(record))
    between_markers(PAGE, "adapters-made", made(record) + "\n")


if __name__ == "__main__":
    write_page()
