"""The tables of docs/guides/when-is-it-worth-it.md, from benchmarks/results/tables.json alone."""

from pathlib import Path
from typing import Any

PAGE = Path(__file__).parents[2] / "docs" / "guides" / "when-is-it-worth-it.md"


def write_page(record: dict[str, Any]) -> None:
    """Write the tables."""
