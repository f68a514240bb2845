"""`innerloop train --seeds`: trainings that differ only in their seed, one by one or several at once."""

import re
from dataclasses import dataclass, replace
from pathlib import Path

from innerloop.cli.common import console
from innerloop.config.bounds import SEED, check_number
from innerloop.config.schema import Config
from innerloop.errors import InnerloopError

MAX_SEEDS = 1000
"""The maximum number of seeds."""


def seeds_of(text: str) -> list[int]:
    """The seeds given by `0..4` or `0,3,7`, in order. Raises InnerloopError for anything else."""
    found: list[int] = []
    for part in text.split(","):
        if not (match := re.fullmatch(r"\s*(\d{1,10})(?:\.\.(\d{1,10}))?\s*", part)):
            raise InnerloopError("--seeds", "must look like 0..4 or 0,3,7", got=repr(text))
        first, last = int(match[1]), int(match[2] or match[1])
        if last < first:
            raise InnerloopError("--seeds", "a range must not end below its start", got=repr(part))
        check_number("--seeds", last, SEED, integer=True)
        if last - first >= MAX_SEEDS:
            raise InnerloopError("--seeds", f"must be at most {MAX_SEEDS} seeds", got=repr(text))
        found += range(first, last + 1)
    if not found or len(set(found)) < len(found) or len(found) > MAX_SEEDS:
        raise InnerloopError("--seeds", f"must be 1 to {MAX_SEEDS} distinct seeds", got=repr(text))
    return found


@dataclass(frozen=True)
class Job:
    """One training into a folder: a new run, or (`resume`) the rest of the run in it."""

    folder: Path
    config: Config
    resume: bool = False


def unfinished(seeds: list[int], config: Config, folder: Path) -> list[Job]:
    """The trainings that remain: stopped runs are resumed, shorter ones made longer, and finished ones left alone.

    Args:
        seeds: the seeds.
        config: the settings, except for the seed.
        folder: holds a folder `seed-N` for every seed N.

    Raises:
        InnerloopError: if one of these folders holds a run with other settings, or one whose length cannot change.
    """
    jobs = []
    for seed in seeds:
        place = folder / f"seed-{seed}"
        if (job := remaining(place, replace(config, seed=seed))) is None:
            console().print(f"{place} is already finished.")
        else:
            jobs.append(job)
    return jobs


def remaining(folder: Path, config: Config) -> Job | None:
    """The training that a folder still needs to hold the finished run of a config; None if it holds that.

    Raises:
        InnerloopError: if the folder holds a run with other settings, or one whose length cannot change.
    """
    from innerloop.training.run_length import resumed_config
    from innerloop.training.storage.run_directory import RunFile, RunFolder
    from innerloop.training.storage.weights import deciding, ended_early

    run = RunFolder(folder)
    if not (folder / RunFile.CONFIG).exists():
        return Job(folder, config)
    own = run.config()
    of_its_length = replace(config, outer=replace(config.outer, meta_steps=own.outer.meta_steps))
    if deciding(own) != deciding(of_its_length):
        hint = "give another --folder"
        raise InnerloopError(str(folder), "holds a run with other settings", hint=hint)
    same_but_longer = replace(own, outer=replace(own.outer, meta_steps=config.outer.meta_steps))
    resumed = resumed_config(run, same_but_longer)
    if resumed == own and run.weights.is_file() and not ended_early(run.weights, own):
        return None
    return Job(folder, resumed_config(run, config), resume=True)
