"""Measure the returns of meta-learned policies on held-out tasks, and generate the docs' tables.

python -m benchmarks.accuracy.rl_returns RUN [RUN ...]

Runs of one preset with different seeds go into the same result file.
"""

import json
import sys
from typing import Any

import numpy as np

from benchmarks.accuracy.measure import FOLDER, commit
from benchmarks.accuracy.tables import write_tables
from innerloop.io.files import write_text
from innerloop.parallel.cpu_devices import use_cores
from innerloop.training.measure import measure
from innerloop.training.storage.run_directory import environment
from innerloop.training.trained import Trained, load_trained

GOALS = 200
"""Held-out goals in navigation. Locomotion uses the preset's number of tasks, 40 as in the paper."""


RATES = (0.5, 0.1, 0.03, 0.01, 0.003, 0.001)


def rate_for(trained: Trained) -> float | None:
    """The inner step size; None for the one used in training.

    Joint training has no inner step, so its step size is the best of `RATES` after one update on validation tasks.
    """
    if trained.config.algorithm != "joint" or not trained.config.outer.meta_steps:
        return None
    tried = {
        rate: measure(trained, num_tasks=40, steps=1, learning_rate=rate, split="validation").curve.mean[1]
        for rate in RATES
    }
    return max(RATES, key=lambda rate: np.nan_to_num(tried[rate], nan=-np.inf))


def measured(trained: Trained) -> dict[str, Any]:
    """Measure the returns on held-out tasks, which are the same for every policy."""
    walks = trained.config.data.dataset == "navigation"
    found = measure(trained, num_tasks=GOALS if walks else None, learning_rate=rate_for(trained))
    told = ", ".join(f"{mean:.2f} +- {ci95:.2f}" for mean, ci95 in zip(*found.curve, strict=True))
    print(f"{trained.config.name}, seed {trained.config.seed}: {told}")
    return {**found.to_json(), "source": trained.config.name}  # not the run's path


def main(sources: list[str]) -> None:
    """Measure the runs, then write their result files and the tables."""
    together: dict[str, list[Trained]] = {}
    for trained in map(load_trained, sources):
        together.setdefault(trained.config.name, []).append(trained)
    for name, members in together.items():
        result = {
            "subject": name,
            "training": members[0].facts,
            "runs": [{"seed": t.config.seed, **t.facts} for t in members],
            "measurements": [measured(t) for t in members],
            "commit": commit(),
            "environment": environment(),
        }
        write_text(FOLDER / f"{name}.json", json.dumps(result, indent=1) + "\n")
    write_tables(FOLDER)


if __name__ == "__main__":
    use_cores(2)
    main(sys.argv[1:])
