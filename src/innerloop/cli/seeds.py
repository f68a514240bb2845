"""`innerloop train --seeds`: trainings that differ by their seed alone, one after the other or some at once."""

import re
import shlex
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from innerloop.cli.common import console
from innerloop.config.schema import Config
from innerloop.errors import InnerloopError

MOST = 1000
"""Seeds at most."""


def seeds_of(text: str) -> list[int]:
    """The seeds that `0..4` or `0,3,7` means, in order. Raises InnerloopError for anything else."""
    found: list[int] = []
    for part in text.split(","):
        if not (match := re.fullmatch(r"\s*(\d{1,9})(?:\.\.(\d{1,9}))?\s*", part)):
            raise InnerloopError("--seeds", "must be like 0..4 or 0,3,7", got=repr(text))
        first, last = int(match[1]), int(match[2] or match[1])
        if last < first:
            raise InnerloopError("--seeds", "the last of a range must not be below its first", got=repr(part))
        if last - first >= MOST:
            raise InnerloopError("--seeds", f"may be {MOST} at most", got=repr(text))
        found += range(first, last + 1)
    if not found or len(set(found)) < len(found) or len(found) > MOST:
        raise InnerloopError("--seeds", f"must be 1 to {MOST} different ones", got=repr(text))
    return found


@dataclass(frozen=True)
class Job:
    """One training: into a folder with a config, or with None the rest of the run in it."""

    folder: Path
    config: Config | None


def train_each(seeds: list[int], config: Config, folder: Path, train: Callable[[list[Job]], int]) -> int:
    """Train with every seed, each into a folder of its own; returns the exit code of the first that did not end.

    A training that has ended is left alone, and one that was stopped goes on: the same command continues.

    Args:
        seeds: the seeds.
        config: the settings but for the seed.
        folder: holds `seed-N` for every seed N.
        train: does the trainings that are left, and returns the exit code.
    """
    out, jobs = console(), []
    for seed in seeds:
        own = folder / f"seed-{seed}"
        state = _state(own, replace(config, seed=seed))
        if state == "finished":
            out.print(f"{own} has ended already.")
        else:
            jobs.append(Job(own, None if state == "begun" else replace(config, seed=seed)))
    if code := train(jobs):
        return code
    out.print(
        f"Together: innerloop compare {shlex.join(str(folder / f'seed-{seed}') for seed in seeds)}",
        style="bold",
    )
    return 0


def one_after_the_other(jobs: list[Job], train: Callable[[Path, Config | None], int]) -> int:
    """Train all in this process; returns 0, or the exit code of the first that did not end."""
    return next((code for job in jobs if (code := train(job.folder, job.config))), 0)


def _state(folder: Path, config: Config) -> str:
    """Whether the training in a folder is `new`, `begun` or `finished`. Raises InnerloopError for another one."""
    from innerloop.training.storage.run_directory import RunFolder
    from innerloop.training.storage.weights import deciding

    run = RunFolder(folder)
    if not (folder / "config.json").exists():
        return "new"
    if deciding(run.config()) != deciding(config):
        do = "give another --folder"
        raise InnerloopError(str(folder), "holds a run with other settings", do=do)
    return "finished" if run.weights.is_file() else "begun"
