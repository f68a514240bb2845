"""The result file of `make test-faults` and `make fuzz`, and the tables that docs/reliability.md has of it."""

import datetime
import json
from pathlib import Path
from typing import Any

from innerloop.run_folder import write_atomically

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results" / "reliability.json"


def put(part: str, name: str, result: dict[str, Any]) -> None:
    """Keep one result, with its day."""
    known = load()
    today = datetime.date.today().isoformat()
    known.setdefault(part, {})[name] = result | {"date": today}
    write_atomically(RESULTS, json.dumps(known, indent=1) + "\n")


def load() -> dict[str, Any]:
    """All results so far."""
    return json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
