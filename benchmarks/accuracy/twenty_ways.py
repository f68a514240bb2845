"""Train five algorithms alike on 20-way 1-shot Omniglot, and compare them on the same held-out tasks.

    python -m benchmarks.accuracy.twenty_ways FOLDER              finish the runs in FOLDER, then measure
    python -m benchmarks.accuracy.twenty_ways FOLDER --tasks 200  on fewer held-out tasks (default: 4000)
    python -m benchmarks.accuracy.twenty_ways --table             only write the table, from the result file

All start from the body of the shipped 5-way model with a zero head, and use the same number of meta-steps, meta-batch,
outer step size and seed. Needs Omniglot in INNERLOOP_DATA.
"""

import argparse
import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.accuracy.tables import between_markers, table
from benchmarks.provenance import circumstances
from innerloop.config.presets.registry import preset
from innerloop.config.schema import Config
from innerloop.engine.evaluation.intervals import half_width
from innerloop.io.files import write_text
from innerloop.parallel.cpu_devices import use_cores
from innerloop.training.measure import measure
from innerloop.training.storage.run_directory import RunFolder
from innerloop.training.train import train
from innerloop.training.trained import load_trained

RESULTS = Path(__file__).parents[1] / "results" / "twenty-ways.json"
PAGE = Path(__file__).parents[2] / "docs" / "getting-started" / "choosing.md"
START, META_STEPS, META_BATCH, OUTER_RATE = "omniglot-5way-1shot-maml", 5000, 4, 0.001
METHODS: dict[str, tuple[str, int, float, int]] = {
    "maml": ("MAML", 1, 1.6, 5),
    "anil": ("ANIL", 1, 1.6, 5),
    "meta-sgd": ("Meta-SGD", 1, 1.6, 1),
    "maml-plus-plus": ("MAML++", 2, 0.8, 2),
    "protomaml": ("ProtoMAML", 1, 0.1, 1),
}
"""By preset: name, inner steps in training, their (initial, if learned) step size, and inner steps at test time."""
FIRST = "maml"
"""The method that the others are compared with."""


def config_of(method: str) -> Config:
    """A method's preset with the settings that all methods share."""
    base, (_, steps, rate, test_steps) = preset(f"omniglot-20way-1shot-{method}"), METHODS[method]
    return replace(
        base,
        model=replace(base.model, features="flatten", start=START),
        inner=replace(base.inner, steps=steps, learning_rate=rate),
        outer=replace(base.outer, meta_steps=META_STEPS, meta_batch=META_BATCH, learning_rate=OUTER_RATE),
        evaluation=replace(base.evaluation, steps=test_steps),
    )


def trained_in(folder: Path, method: str) -> Path:
    """Train the method's run, or resume it, unless it is finished; return its folder."""
    run = folder / method
    if not RunFolder(run).weights.exists():
        train(config_of(method), run, resume=run.exists())
    return run


def measured(run: Path, tasks: int) -> tuple[dict[str, Any], np.ndarray]:
    """A run's record in the protocol's normalisation mode, and its score on every task."""
    show = lambda done, total: print(f"\r  {done}/{total} tasks", end="", file=sys.stderr)
    found = measure(load_trained(str(run)), num_tasks=tasks, on_progress=show)
    facts = {"seconds": load_trained(str(run)).facts.get("seconds")}
    return found.to_json() | {"source": run.name, "training": facts}, found.task_scores


def compare(folder: Path, tasks: int) -> dict[str, Any]:
    """Train and measure all methods, and compare them with the first task by task."""
    records, scores = {}, {}
    for method, (name, *_) in METHODS.items():
        print(name, flush=True)
        records[method], scores[method] = measured(trained_in(folder, method), tasks)
        gap = np.asarray(scores[method] - scores[FIRST], np.float64)
        records[method]["gain"] = [float(gap.mean()), float(half_width(gap))]
        print(f"\r  {records[method]['accuracy']:.4f}, gain {records[method]['gain']}", flush=True)
    settings = {"start": START, "meta_steps": META_STEPS, "meta_batch": META_BATCH, "rate": OUTER_RATE}
    return {"settings": settings, "methods": records, **circumstances()}


def page_table(results: dict[str, Any]) -> str:
    """Accuracies in percent and gains in percentage points, bold if the interval excludes 0."""
    rows = []
    for method, record in results["methods"].items():
        (gain, half), (name, steps, rate, test_steps) = record["gain"], METHODS[method]
        told = f"{100 * gain:+.2f} ± {100 * half:.2f}"
        accuracy = f"{100 * record['accuracy']:.2f} ± {100 * record['ci95']:.2f}"
        cells = [name, f"{steps} x {rate:g}", str(test_steps), accuracy]
        rows.append([*cells, "" if method == FIRST else f"**{told}**" if abs(gain) > half else told])
    heads = ["", "inner steps in training", "at test", "accuracy, %", "minus MAML, same tasks"]
    return table(heads, rows)


def main() -> None:
    """Run the command."""
    asked = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    asked.add_argument("folder", type=Path, nargs="?", metavar="FOLDER", help="parent of the run folders")
    asked.add_argument("--tasks", type=int, default=4000, help="held-out tasks (default: 4000)")
    asked.add_argument("--table", action="store_true", help="only write the table")
    arguments = asked.parse_args()
    if not arguments.table:
        if arguments.folder is None:
            asked.error("FOLDER is required unless --table is given")
        use_cores()
        write_text(RESULTS, json.dumps(compare(arguments.folder, arguments.tasks), indent=1) + "\n")
    between_markers(PAGE, "twenty-ways", page_table(json.loads(RESULTS.read_text())))


if __name__ == "__main__":
    main()
