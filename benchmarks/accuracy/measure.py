"""Measure accuracy and error on held-out tasks, and generate the docs' tables.

    python -m benchmarks.accuracy.measure                 evaluate every shipped initialisation and baseline
    python -m benchmarks.accuracy.measure NAME ...        evaluate only these models or run folders
    python -m benchmarks.accuracy.measure --table         only write the tables, from the existing result files
    python -m benchmarks.accuracy.measure --tasks 1000    on fewer held-out tasks (default: 10 000)
    python -m benchmarks.accuracy.measure NAME --modes transductive inductive    only in these normalisation modes
    python -m benchmarks.accuracy.measure NAME --add      keep measurements with other settings in its file

Each subject has one file in benchmarks/results: every measurement with its settings and commit, the length and seed of
training, and the machine. Every call also writes the tables.
"""

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.provenance import commit
from innerloop.config.presets.registry import preset
from innerloop.io.files import write_text
from innerloop.parallel.cpu_devices import use_cores
from innerloop.training.experiments.build import build
from innerloop.training.measure import measure
from innerloop.training.storage import shipped, weights
from innerloop.training.storage.run_directory import RunFolder, environment
from innerloop.training.trained import Trained, load_trained

FOLDER = Path(__file__).parents[1] / "results"
MODES = ("transductive", "inductive", "support")
RATES = (0.01, 0.03, 0.1, 0.3, 1.0, 2.0)


Measurements = Callable[[int], list[dict[str, Any]]]
"""Number of held-out tasks -> records."""


def measured(trained: Trained, count: int, **settings: Any) -> dict[str, Any]:
    """Take one measurement, showing progress."""
    show = lambda done, total: print(f"\r  {done}/{total} tasks", end="", file=sys.stderr)
    found = measure(trained, num_tasks=count, on_progress=show, **settings)
    print(f"\r  {settings}: {found.score} {found.value:.4f} +- {found.ci95:.4f}")
    record = found.to_json()
    return record | {"source": Path(record["source"]).name, "commit": commit()}  # without the local path


def image_measurements(trained: Trained, count: int, modes: Sequence[str] = MODES) -> list[dict[str, Any]]:
    """Accuracy on the same tasks in each normalisation mode, the protocol's first."""
    return [measured(trained, count, normalization=mode) for mode in modes]


def sinusoid_measurements(trained: Trained, count: int) -> list[dict[str, Any]]:
    """Errors with 5 and 10 points in MAML's protocol, with 10 points in Reptile's."""
    shots = (10,) if trained.config.data.protocol == "reptile" else (5, 10)
    return [measured(trained, count, shots=k) for k in shots]


def tuned(trained: Trained, count: int, modes: Sequence[str] = MODES) -> list[dict[str, Any]]:
    """Measure a fine-tuned baseline with the step size and number of steps that are best on validation classes."""
    tried = []
    for rate in RATES:
        found = measure(trained, num_tasks=400, learning_rate=rate, split="validation", steps=20)
        mean = found.curves["accuracy"].mean
        best = max(range(1, len(mean)), key=mean.__getitem__)
        tried.append((mean[best], rate, found.steps[best]))
    _, rate, steps = max(tried)
    return [measured(trained, count, learning_rate=rate, steps=steps, normalization=mode) for mode in modes]


def of_model(source: str, modes: Sequence[str], count: int) -> list[dict[str, Any]]:
    """Measure a shipped model or a run folder in the way that suits its data and algorithm."""
    trained = load_trained(source)
    if trained.config.data.dataset == "sinusoid":
        return sinusoid_measurements(trained, count)
    return (tuned if trained.config.algorithm == "joint" else image_measurements)(trained, count, modes)


def subjects(modes: Sequence[str] = MODES) -> dict[str, Measurements]:
    """What to measure, by name of the result file; `modes` are the normalisation modes."""
    found: dict[str, Measurements] = {}
    for name in shipped.names():
        if name.startswith(("navigation", "half-cheetah", "ant-")):
            continue  # benchmarks.accuracy.rl_returns measures policies, with several seeds each
        found[name] = partial(of_model, name, modes)
    found["omniglot-5way-1shot-untrained"] = lambda count: tuned(untrained(), count, modes)
    return found


def untrained() -> Trained:
    """The network before pre-training: the baseline that is fine-tuned from random weights."""
    experiment = build(preset("omniglot-5way-1shot-joint"))
    params = experiment.for_tasks(experiment.init_params())
    return Trained(params, experiment, "random weights", {"meta_steps": 0})


def training_of(source: str) -> tuple[str, dict[str, Any]]:
    """A subject's name, and the facts and seed of its training."""
    if source not in shipped.names() and not is_run(source):
        return source, {"meta_steps": 0, "seed": 0}
    path = shipped.path(source) if source in shipped.names() else RunFolder(source).weights
    _, config, facts = weights.load(path)
    return config.name, {**facts, "seed": config.seed}


def take(
    source: str, measurements: Measurements, count: int, add: bool = False, folder: Path | None = None
) -> None:
    """Measure one subject and write its file; with `add`, the file keeps measurements with other settings."""
    print(source)
    name, training = training_of(source)
    path, made = (folder or FOLDER) / f"{name}.json", measurements(count)
    if add and path.exists():
        known = json.loads(path.read_text())["measurements"]
        made = [old for old in known if not any(same_settings(old, new) for new in made)] + made
    result = {
        "subject": name,
        "training": training,
        "measurements": made,
        "commit": commit(),
        "environment": environment(),
    }
    write_text(path, json.dumps(result, indent=1) + "\n")


SETTINGS = ("normalization", "rotations", "shots", "queries_per_class", "queries", "inner_steps")
SETTINGS += ("inner_learning_rate",)


def same_settings(a: dict[str, Any], b: dict[str, Any]) -> bool:
    """Whether two records have the same settings, regardless of the time and the number of tasks."""
    return all(a.get(name) == b.get(name) for name in SETTINGS)


def is_run(source: str) -> bool:
    """Whether `source` is the folder of a finished run."""
    return RunFolder(source).weights.is_file()


def main(words: list[str]) -> None:
    """Measure, then write the tables."""
    from benchmarks.accuracy.tables import write_tables

    reader = argparse.ArgumentParser(prog="python -m benchmarks.accuracy.measure")
    reader.add_argument("names", nargs="*", metavar="NAME")
    reader.add_argument("--tasks", type=int, default=10_000)
    reader.add_argument("--modes", nargs="+", choices=MODES, default=MODES)
    reader.add_argument("--table", action="store_true")
    reader.add_argument("--add", action="store_true")
    asked = reader.parse_args(words)
    if not asked.table:
        known = subjects(asked.modes)
        known |= {name: partial(of_model, name, asked.modes) for name in asked.names if is_run(name)}
        if unknown := set(asked.names) - set(known):
            reader.error(f"unknown: {', '.join(sorted(unknown))}; choose among {', '.join(known)}")
        for name in asked.names or known:
            take(name, known[name], asked.tasks, asked.add)
    write_tables(FOLDER)


if __name__ == "__main__":
    use_cores(2)
    main(sys.argv[1:])
