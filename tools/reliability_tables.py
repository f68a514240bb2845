"""Store results of `make test-faults` and `make fuzz`, and generate the tables of docs/reference/reliability.md."""

import datetime
import json
from pathlib import Path
from typing import Any

from innerloop.io.files import write_text

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results" / "reliability.json"
MUTANTS = ROOT / "benchmarks" / "results" / "mutants.json"


def put(part: str, name: str, result: dict[str, Any]) -> None:
    """Save one result with today's date."""
    known = load()
    today = datetime.date.today().isoformat()
    known.setdefault(part, {})[name] = result | {"date": today}
    write_text(RESULTS, json.dumps(known, indent=1) + "\n")


def load() -> dict[str, Any]:
    """All results so far."""
    return json.loads(RESULTS.read_text()) if RESULTS.exists() else {}


DOCUMENT = ROOT / "docs" / "reference" / "reliability.md"


def table(heads: tuple[str, ...], rows: list[tuple[object, ...]]) -> str:
    """A Markdown table."""
    line = lambda cells: "| " + " | ".join(str(cell) for cell in cells) + " |"
    return "\n".join([line(heads), line("---" for _ in heads), *map(line, rows)])


def faults(known: dict[str, Any]) -> str:
    """One row per fault, with the command that causes it."""
    rows = [
        (r["fault"], r["tried"], r["outcome"], r["lost"], f"`pytest {r['test']}`", r["date"])
        for r in known.get("faults", {}).values()
    ]
    return table(("fault", "tried", "what happens", "work lost", "command", "run on"), rows)


def fuzzed(known: dict[str, Any]) -> str:
    """One row per reader."""
    rows = [
        (
            name,
            f"{r['inputs']:,}".replace(",", " "),
            f"{r['read']:,}".replace(",", " "),
            f"{r['refused']:,}".replace(",", " "),
            len(r["findings"]),
            f"{r['megabytes']} MB",
            f'`python -m tests.fuzz --reader "{name}"`',
            r["date"],
        )
        for name, r in known.get("fuzz", {}).items()
    ]
    heads = ("reader", "inputs", "read", "refused", "findings", "memory growth", "command", "run on")
    return table(heads, rows)


def mutants() -> str:
    """One row per package: changes tried, changes found by the nearest tests, and changes without effect."""
    packages: dict[str, list[dict[str, Any]]] = {}
    for row in json.loads(MUTANTS.read_text())["mutants"]:
        packages.setdefault(row["file"].rpartition("/")[0], []).append(row)
    packages = dict(sorted(packages.items()))
    packages["all"] = [row for rows in packages.values() for row in rows]
    lines = []
    for name, rows in packages.items():
        found = sum(bool(row["found_by"]) for row in rows)
        explained = sum(bool(row.get("why")) for row in rows)
        files = len({row["file"] for row in rows})
        lines.append(
            (name, files, len(rows), found, explained, f"{100 * found / (len(rows) - explained):.1f} %")
        )
    heads = ("package", "files", "changes", "found", "without effect", "found of those with effect")
    return table(heads, lines)


def licences() -> str:
    """The packages under each licence."""
    from tools.sbom import BILL

    parts = json.loads(BILL.read_text())["components"]
    by_name: dict[str, list[str]] = {}
    for part in parts:
        by_name.setdefault(part["licenses"][0]["license"]["name"], []).append(part["name"])
    rows = [(name, len(members), ", ".join(members)) for name, members in sorted(by_name.items())]
    return table(("licence", "packages", "which"), rows)


def between(text: str, mark: str, content: str) -> str:
    """`text` with new content between two marker comments."""
    begin, end = f"<!-- {mark} -->\n", f"\n<!-- end of {mark} -->"
    before, rest = text.split(begin)
    return before + begin + content + end + rest.split(end)[1]


def document(text: str) -> str:
    """The page with updated tables."""
    known = load()
    tables = {"faults": faults(known), "fuzz": fuzzed(known), "mutants": mutants(), "licences": licences()}
    for mark, content in tables.items():
        text = between(text, mark, content)
    return text


if __name__ == "__main__":
    write_text(DOCUMENT, document(DOCUMENT.read_text()))
