"""Run the analysis experiments on trained models, and generate the tables of docs/guides/analysis.md.

    python -m benchmarks.accuracy.analysis                     everything below, then the page
    python -m benchmarks.accuracy.analysis model SOURCE ...    every experiment on shipped weights or run folders
    python -m benchmarks.accuracy.analysis model --tasks 300 SOURCE ...    on fewer held-out tasks (default: 1000)
    python -m benchmarks.accuracy.analysis across A B ...      similarity of each pair of models
    python -m benchmarks.accuracy.analysis speed               speed of ANIL and FOMAML relative to MAML
    python -m benchmarks.accuracy.analysis --page              write only the page, from the existing result files

Each subject has one file in benchmarks/results/analysis, with settings, commit, machine and wall time. The page also
averages runs of one preset that differ only in their seed.
"""

import itertools
import json
import sys
import time
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jax

from benchmarks.accuracy.measure import commit
from innerloop.analysis.analyzed_model import no_progress
from innerloop.analysis.run_all import Request, analyze
from innerloop.cli.common import start_jax
from innerloop.config.presets.recipes import RECIPES
from innerloop.config.presets.registry import preset
from innerloop.engine.evaluation.evaluate import evaluator
from innerloop.io.files import write_text
from innerloop.training.experiments.build import build
from innerloop.training.experiments.supervised import SupervisedExperiment, supervised
from innerloop.training.storage import shipped
from innerloop.training.storage.run_directory import environment

FOLDER = Path(__file__).parents[1] / "results" / "analysis"
TASKS = 1000
SPEED = ("omniglot-5way-1shot", "omniglot-20way-1shot", "cifar-fs-5way-1shot", "cifar-fs-5way-5shot")
DETAILS = ("landscape", "paths")
"""Not in the result files: thousands of coordinates that no table shows."""


@contextmanager
def watching(title: str) -> Any:
    """Print one line per experiment with its wall time."""
    begun = time.monotonic()
    print(f"  {title}", end="", flush=True)
    yield no_progress
    print(f": {time.monotonic() - begun:.0f} s", flush=True)


def keep(name: str, result: dict[str, Any]) -> None:
    """Write one result file."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    facts = {"commit": commit(), "environment": environment()}
    write_text(FOLDER / f"{name}.json", json.dumps({"subject": name, **result, **facts}, indent=1) + "\n")


def name_of(source: str) -> str:
    """A source's short name."""
    return Path(source).stem


def model(source: str, tasks: int = TASKS) -> None:
    """Run every experiment that a table shows on one model."""
    print(source)
    begun = time.monotonic()
    wanted = ["freeze", "similarity", "nil", "weights", "steps"]
    if (Path(source) / "snapshots").is_dir():
        wanted.append("early")
    results = analyze(Request(source, num_tasks=tasks), wanted, progress_for=watching)
    results["source"] = name_of(source)
    keep(
        name_of(source), {"kind": "model", "results": results, "seconds": round(time.monotonic() - begun, 1)}
    )


def across(first: str, second: str) -> None:
    """Measure the similarity of two models."""
    print(f"{first} and {second}")
    results = analyze(Request(first, num_tasks=TASKS, against=second), ["against"], progress_for=watching)
    names = [name_of(first), name_of(second)]
    keep("--".join(names), {"kind": "across", "models": names, "results": results["against"]})


# --- speed ----------------------------------------------------------------------------------------------------


def seconds_of(calls: dict[str, Any], repeats: int = 7) -> dict[str, list[float]]:
    """Wall seconds of each call, timed in turn so that other load affects all of them alike."""
    for call in calls.values():
        call()  # compiles
    found: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(repeats):
        for name, call in calls.items():
            begun = time.perf_counter()
            call()
            found[name].append(time.perf_counter() - begun)
    return found


def training_call(experiment: SupervisedExperiment, steps: int) -> Any:
    """A call that runs `steps` meta-steps from the initial weights."""
    loop = experiment.outer_loop()
    fresh = lambda: loop.start(experiment.init_params(), experiment.keys().tasks)
    return lambda: jax.block_until_ready(loop.run(fresh(), steps)[0].params)


def inference_call(experiment: SupervisedExperiment, tasks: int) -> Any:
    """A call that adapts and predicts on held-out tasks, scoring only after the last step."""
    algorithm = experiment.test_algorithm
    run = evaluator(
        algorithm,
        experiment.held_out_tasks(),
        experiment.score(),
        num_tasks=tasks,
        record=(algorithm.inner.steps,),
        chunk=experiment.chunk or 1,
    )
    params = experiment.for_tasks(experiment.init_params())
    return lambda: list(run(params, jax.random.key(0)))


def speed(setting: str) -> None:
    """Time ANIL and FOMAML beside MAML in one setting, with the presets' inner steps."""
    print(f"speed of {setting}")
    # All three without recipes: only the algorithm may differ.
    ours = {algorithm: f"{setting}-{algorithm}" for algorithm in ("maml", "anil", "fomaml")}
    names = {algorithm: f"{name}-short" if name in RECIPES else name for algorithm, name in ours.items()}
    experiments = {name: supervised(build(preset(short))) for name, short in names.items()}
    training = seconds_of({name: training_call(e, 2) for name, e in experiments.items()})
    inference = seconds_of({name: inference_call(e, 16) for name, e in experiments.items()})
    config = experiments["maml"].config
    settings = {
        "inner_steps": config.inner.steps,
        "test_steps": config.evaluation.steps,
        "meta_batch": config.outer.meta_batch,
    }
    per = {
        "training_seconds_per_meta_step": {n: [s / 2 for s in x] for n, x in training.items()},
        "inference_seconds_per_task": {n: [s / 16 for s in x] for n, x in inference.items()},
    }
    keep(f"speed-{setting}", {"kind": "speed", "setting": setting, "settings": settings, **per})


def everything() -> None:
    """Measure all shipped image classifiers, each pair in the same setting, and the speeds."""
    images = [name for name in shipped.names() if "way" in name and not name.endswith("joint")]
    for name in images:
        model(name)
    for a, b in itertools.combinations(images, 2):
        if a.rsplit("-", 1)[0] == b.rsplit("-", 1)[0]:
            across(a, b)
    for setting in SPEED:
        speed(setting)


def main(words: list[str]) -> None:
    """Measure what was asked for, then write the page."""
    from benchmarks.accuracy.analysis_page import write_page

    match words:
        case []:
            everything()
        case ["model", "--tasks", count, *sources] if count.isdecimal():
            for source in sources:
                model(source, int(count))
        case ["model", *sources]:
            for source in sources:
                model(source)
        case ["across", *sources]:
            for a, b in itertools.combinations(sources, 2):
                across(a, b)
        case ["speed", *settings]:
            for setting in settings or SPEED:
                speed(setting)
        case ["--page"]:
            pass
        case _:
            sys.exit(__doc__)
    write_page(FOLDER)


if __name__ == "__main__":
    start_jax()
    main(sys.argv[1:])
