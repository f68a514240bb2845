"""`innerloop train --seeds`: trainings that differ only in their seed, one by one or several at once."""

import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

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


def unfinished(seeds: list[int], config: Config, folder: Path) -> list[Job]:
    """The trainings that remain: stopped ones are resumed and finished ones left alone.

    Args:
        seeds: the seeds.
        config: the settings, except for the seed.
        folder: holds a folder `seed-N` for every seed N.

    Raises:
        InnerloopError: if one of these folders holds a run with other settings.
    """
    jobs = []
    for seed in seeds:
        place, own = folder / f"seed-{seed}", replace(config, seed=seed)
        state = state_of(place, own)
        if state == "finished":
            console().print(f"{place} is already finished.")
        else:
            jobs.append(Job(place, None if state == "begun" else own))
    return jobs


def state_of(folder: Path, config: Config) -> Literal["new", "begun", "finished"]:
    """The state of a run in its folder. Raises InnerloopError if the folder holds a run with other settings."""
    from innerloop.training.storage.run_directory import RunFile, RunFolder
    from innerloop.training.storage.weights import deciding

    run = RunFolder(folder)
    if not (folder / RunFile.CONFIG).exists():
        return "new"
    if deciding(run.config()) != deciding(config):
        hint = "give another --folder"
        raise InnerloopError(str(folder), "holds a run with other settings", hint=hint)
    return "finished" if run.weights.is_file() else "begun"
