"""Train for as long as the papers, one preset after another, and measure each in both normalisation modes.

Existing work is kept: a stopped run is resumed, a finished run is measured, and a measured run is skipped.
"""

import json
import time
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import jax

from benchmarks.accuracy import measure
from innerloop.config.presets.published import PAPER_LENGTH, PUBLISHED
from innerloop.config.presets.registry import preset
from innerloop.config.schema import Config
from innerloop.training.experiments.build import build
from innerloop.training.experiments.supervised import supervised
from innerloop.training.memory.memory_plan import apply_plan, memory_plan
from innerloop.training.storage.run_directory import RunFolder
from innerloop.training.train import train

MODES = ("transductive", "inductive")
TIMED, DRY_TASKS = 4, 8
"""Meta-steps timed for an estimate; held-out tasks of a dry run."""


def default_names() -> list[str]:
    """All paper-length presets whose data need no licence: MAML and its relatives, then Reptile."""
    names = [f"{name}-paper-length" for name in PAPER_LENGTH]
    names += [f"{name}-published" for name in PUBLISHED if name.endswith("reptile")]
    return [name for name in names if not preset(name).data.spec.needs_folder]


def small(config: Config) -> Config:
    """The same config with 2 meta-steps, few tasks and a narrow network, for a dry run of the whole pipeline."""
    outer = replace(config.outer, meta_steps=2, meta_batch=2, log_every=1, snapshots=0)
    evaluation = replace(config.evaluation, validation_tasks=DRY_TASKS, tasks=DRY_TASKS, steps=2)
    model = replace(config.model, filters=4, start="")
    return replace(config, model=model, outer=outer, evaluation=evaluation)


@dataclass(frozen=True)
class Job:
    """One training run and its measurement."""

    config: Config
    folder: Path
    results: Path
    tasks: int

    @property
    def run(self) -> RunFolder:
        """The run folder."""
        return RunFolder(self.folder)

    @property
    def trained(self) -> bool:
        """Whether training has finished."""
        return self.run.weights.is_file()

    @property
    def measured(self) -> bool:
        """Whether this training run has a result."""
        path = self.results / f"{self.config.name}.json"
        known = json.loads(path.read_text()) if path.exists() else {}
        length = known.get("training", {}).get("meta_steps")
        return self.trained and length == self.config.outer.meta_steps

    @property
    def steps_left(self) -> int:
        """Meta-steps not yet logged."""
        done = [record["step"] for record in self.run.metrics()] if self.folder.is_dir() else []
        return 0 if self.trained else self.config.outer.meta_steps - max(done, default=0)

    def estimate(self) -> float:
        """Estimate the seconds for the remaining meta-steps by timing a few after compilation."""
        if not self.steps_left:
            return 0.0
        made = supervised(build(self.config))
        made = apply_plan(made, memory_plan(made))
        loop = made.outer_loop()
        state = loop.start(made.init_params(), made.keys().tasks)
        state, _ = loop.run(state, TIMED)
        begun = time.monotonic()
        jax.block_until_ready(loop.run(state, TIMED))
        return (time.monotonic() - begun) / TIMED * self.steps_left

    def finish(self) -> None:
        """Start or resume training, run it to the end, then measure."""
        if not self.trained:
            begun = (self.folder / "config.json").exists()
            train(None if begun else self.config, self.folder, resume=begun)
        source = str(self.folder)
        measure.take(source, partial(measure.of_model, source, MODES), self.tasks, folder=self.results)


def jobs(names: list[str], runs: Path, results: Path, tasks: int, dry: bool) -> list[Job]:
    """The jobs for these presets, or for the default ones. Raises InnerloopError for an unknown preset."""
    configs = [preset(name) for name in names or default_names()]
    tasks = DRY_TASKS if dry else tasks
    return [Job(small(c) if dry else c, runs / c.name, results, tasks) for c in configs]


def in_words(seconds: float) -> str:
    """An estimated time in hours or minutes."""
    return f"{seconds / 3600:.1f} h" if seconds >= 3600 else f"{seconds / 60:.1f} min"


def announce(todo: list[Job]) -> None:
    """Print how long each training run will take, and all together."""
    times = [job.estimate() for job in todo]
    for job, seconds in zip(todo, times, strict=True):
        print(f"{job.config.name}: {job.steps_left} meta-steps, about {in_words(seconds)}", flush=True)
    print(f"All training runs: about {in_words(sum(times))}, plus the measurements", flush=True)


def run_all(asked: list[Job]) -> None:
    """Announce and finish every job that is not yet measured."""
    for job in asked:
        if job.measured:
            print(f"{job.config.name}: already done")
    todo = [job for job in asked if not job.measured]
    announce(todo)
    for job in todo:
        job.finish()
