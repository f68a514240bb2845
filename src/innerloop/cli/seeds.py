"""`innerloop train --seeds`: trainings that differ only in their seed, one by one or several at once."""

import re
import shlex
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from innerloop.cli.common import console
from innerloop.config.schema import Config
from innerloop.errors import InnerloopError

MAX_SEEDS = 1000
"""The maximum number of seeds."""


def seeds_of(text: str) -> list[int]:
    """The seeds given by `0..4` or `0,3,7`, in order. Raises InnerloopError for anything else."""
    found: list[int] = []
    for part in text.split(","):
        if not (match := re.fullmatch(r"\s*(\d{1,9})(?:\.\.(\d{1,9}))?\s*", part)):
            raise InnerloopError("--seeds", "must look like 0..4 or 0,3,7", got=repr(text))
        first, last = int(match[1]), int(match[2] or match[1])
        if last < first:
            raise InnerloopError("--seeds", "a range must not end below its start", got=repr(part))
        if last - first >= MAX_SEEDS:
            raise InnerloopError("--seeds", f"must be at most {MAX_SEEDS} seeds", got=repr(text))
        found += range(first, last + 1)
    if not found or len(set(found)) < len(found) or len(found) > MAX_SEEDS:
        raise InnerloopError("--seeds", f"must be 1 to {MAX_SEEDS} distinct seeds", got=repr(text))
    return found


@dataclass(frozen=True)
class Job:
    """One training: a new run in a folder, or, without a config, the rest of the run in it."""

    folder: Path
    config: Config | None


def train_each(seeds: list[int], config: Config, folder: Path, train: Callable[[list[Job]], int]) -> int:
    """Train with every seed, each in its own folder; return the exit code of the first that did not finish.

    Finished trainings are left alone and stopped ones are resumed, so the same command continues after a stop.

    Args:
        seeds: the seeds.
        config: the settings, except for the seed.
        folder: holds a folder `seed-N` for every seed N.
        train: runs the remaining trainings and returns the exit code.
    """
    out, jobs = console(), []
    for seed in seeds:
        own = folder / f"seed-{seed}"
        state = _state(own, replace(config, seed=seed))
        if state == "finished":
            out.print(f"{own} is already finished.")
        else:
            jobs.append(Job(own, None if state == "begun" else replace(config, seed=seed)))
    if code := train(jobs):
        return code
    out.print(
        f"Compare: innerloop compare {shlex.join(str(folder / f'seed-{seed}') for seed in seeds)}",
        style="bold",
    )
    return 0


def train_sequentially(jobs: list[Job], train: Callable[[Path, Config | None], int]) -> int:
    """Train all in this process; return 0, or the exit code of the first that did not finish."""
    return next((code for job in jobs if (code := train(job.folder, job.config))), 0)


def _state(folder: Path, config: Config) -> str:
    """Whether the training in a folder is `new`, `begun` or `finished`. Raises InnerloopError if settings differ."""
    from innerloop.training.storage.run_directory import RunFolder
    from innerloop.training.storage.weights import deciding

    run = RunFolder(folder)
    if not (folder / "config.json").exists():
        return "new"
    if deciding(run.config()) != deciding(config):
        hint = "give another --folder"
        raise InnerloopError(str(folder), "holds a run with other settings", hint=hint)
    return "finished" if run.weights.is_file() else "begun"
