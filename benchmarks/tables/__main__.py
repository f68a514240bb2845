"""Measure all families and write the result file and the guide: `python -m benchmarks.tables [FAMILY ...]`.

With `--page`, only write the guide's tables, from the result file.
"""

import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

import innerloop as il
from benchmarks.provenance import circumstances
from benchmarks.tables import baselines, meta
from benchmarks.tables.families import FAMILIES, Family, folds
from benchmarks.tables.page import write_page
from innerloop.engine.evaluation.intervals import half_width, mean_over_tasks

RESULTS = Path(__file__).parents[1] / "results" / "tables.json"
SHOTS, DRAWS, FOLDS = (1, 3, 5), 5, 3


def measured(family: Family) -> dict[str, Any]:
    """Measure one family: every method's mean error over groups, by number of examples."""
    found: dict[str, dict[int, list[np.ndarray]]] = {}
    seconds: dict[str, float] = {}
    tables = folds(family, count=FOLDS, draws=DRAWS, shots=SHOTS)
    for number, fold in enumerate(tables, 1):
        for name, predict, took in _methods(fold):
            seconds[name] = seconds.get(name, 0.0) + took
            for k, tasks in fold.test.items():
                of_task = baselines.errors(tasks, predict(tasks, k))
                found.setdefault(name, {}).setdefault(k, []).append(of_task.reshape(-1, DRAWS).mean(1))
        print(family.name, f"fold {number}", {n: round(s, 1) for n, s in seconds.items()}, flush=True)
    groups = {name: {k: np.concatenate(e) for k, e in by_shots.items()} for name, by_shots in found.items()}
    sizes = np.concatenate([fold.table.test.sizes for fold in tables])
    return {
        "title": family.title,
        "source": family.source,
        "groups": len(sizes),
        "rows": int(sizes.sum()),
        "rows_of_a_group": [int(sizes.min()), int(sizes.max())],
        "features": tables[0].table.preparation.features,
        "methods": {name: _record(by_shots, groups["mixed"]) for name, by_shots in groups.items()},
    }


def _methods(fold: Any) -> Any:
    """Fit every method on one fold; yield its name, its predictor and the seconds it took."""
    for name, fit in (
        ("alone", baselines.alone),
        ("mixed", baselines.mixed_model),
        ("process", baselines.gaussian_process),
        ("maml", meta.meta_learned(il.maml)),
        ("anil", meta.meta_learned(il.anil)),
    ):
        began, predict = time.perf_counter(), fit(fold)
        yield name, predict, time.perf_counter() - began
    began, (pooled, tuned) = time.perf_counter(), meta.pooled_and_tuned(fold)
    yield "pooled", pooled, time.perf_counter() - began
    yield "tuned", tuned, 0.0


def _record(of_groups: dict[int, np.ndarray], mixed: dict[int, np.ndarray]) -> dict[str, Any]:
    """Mean errors over groups, and mean paired differences from the mixed model, with their intervals."""
    points = {}
    for k, values in of_groups.items():
        difference = values - mixed[k]
        points[str(k)] = {
            "error": float(mean_over_tasks(values)),
            "ci95": float(half_width(values)),
            "minus_mixed": float(mean_over_tasks(difference)),
            "minus_mixed_ci95": float(half_width(difference)),
        }
    return {"shots": points}


def main(words: list[str]) -> None:
    """Measure the named families, or all; the others keep their results."""
    for family in FAMILIES if "--page" not in words else ():
        if not words or family.name in words:
            found = {family.name: measured(family)}
            kept = json.loads(RESULTS.read_text())["families"] if RESULTS.exists() else {}
            record = {"families": kept | found, "draws": DRAWS, "folds": FOLDS, **circumstances()}
            RESULTS.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    write_page(json.loads(RESULTS.read_text()))


if __name__ == "__main__":
    main(sys.argv[1:])
