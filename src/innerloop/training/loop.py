"""The training loop: dispatches, their checks, validation, and when to save."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import jax
import numpy as np

from innerloop.engine.evaluate import join
from innerloop.engine.meta_state import MetaState, keep
from innerloop.errors import InnerloopError
from innerloop.parallel import multi_process
from innerloop.parallel.mesh import on_the_host, own_copy
from innerloop.training import divergence, nan_diagnosis
from innerloop.training.experiment import Block, Evaluator, Experiment, held_out_key
from innerloop.training.recorder import Recorder
from innerloop.training.signals import Guard
from innerloop.training.signals import Stopped as Stopped


@dataclass(frozen=True)
class Progress:
    """What a run says of itself after each dispatch."""

    step: int
    total: int
    tasks_per_second: float
    seconds_left: float
    metrics: dict[str, float]
    environment_steps_per_second: float = 0.0


class TrainingLoop:
    """One run in progress. Of several processes, each has one; the first one's recorder writes."""

    def __init__(
        self,
        experiment: Experiment,
        recorder: Recorder,
        on_progress: Callable[[Progress], None],
        guard: Guard,
    ):
        self.experiment, self.recorder, self.on_progress, self.guard = (
            experiment,
            recorder,
            on_progress,
            guard,
        )
        self.config = experiment.config.outer
        self.distribution = experiment.train_tasks()
        self.loop = experiment.outer_loop(self.distribution)
        # Now, so that too few classes are told before training.
        self.held_out = experiment.held_out_tasks("validation")
        # What is too large for one device is first made on the host.
        with on_the_host() if self.config.model_shards > 1 else nullcontext():
            first = recorder.first_state(experiment.init_params(), self.fresh)
            self.state = multi_process.tree_from_first(first)

    def fresh(self, params: Any) -> MetaState:
        """The state before the first meta-step."""
        return self.loop.start(params, self.experiment.keys().tasks)

    def run_to_end(self) -> MetaState:
        """All remaining meta-steps, then the final weights."""
        total, step = self.config.meta_steps, int(self.state.step)
        # Processes stop together, hence at the end of a block.
        rescue = None if multi_process.is_multi_process() else self.rescue
        with self.recorder.open(), self.guard.saving(rescue):
            self.begun, self.first = time.monotonic(), step
            if step == 0 and self.config.snapshots:
                self.recorder.snapshot(self.state)
            while step < total:
                length = min(self.config.log_every, total - step)
                step += length
                self.block(step, length)
                self.save_if_due(step, length)
            self.recorder.finish(self.state)
        return self.state

    def save_if_due(self, step: int, length: int) -> None:
        """Save where that is due; where a signal came too, and then raise Stopped unless that was the end."""
        # Asked of one process, all stop.
        stop = max(multi_process.all_gather_int(max(self.guard.numbers, default=0)))
        end = step == self.config.meta_steps
        if due(self.config.checkpoint_every, step, length) or end or stop:
            self.recorder.save(self.state)
        if stop and not end:
            self.recorder.wait()
            raise Stopped(stop, step, self.recorder.folder)

    def block(self, step: int, length: int) -> None:
        """The `length` meta-steps up to `step`, with what is logged and said of them."""
        self.before = keep(jax.tree.map(own_copy, self.state))
        with self.guard.computing():
            self.state, info = self.loop.run(self.state, length, on_nonfinite="ignore")
            incidents = self.check(info, step)
            metrics = self.metrics(info, step)
        with self.saved_first(self.before):  # as if the block had not been: its line is not there
            self.recorder.log(step, metrics, incidents)
            if reached(self.config.snapshots, self.config.meta_steps, step, length):
                self.recorder.snapshot(self.state)
        with self.saved_first(self.state):
            self.on_progress(self.progress(step, metrics))

    @contextmanager
    def saved_first(self, state: MetaState) -> Iterator[None]:
        """Save this state before an error goes on its way, if it can be saved."""
        try:
            yield
        except (Exception, SystemExit):
            with suppress(InnerloopError):
                self.recorder.save(state)
                self.recorder.wait()
            raise

    def rescue(self, number: int) -> Stopped:
        """Save the state before the block under way, which has not ended in time."""
        self.recorder.save(self.before)
        self.recorder.wait()
        return Stopped(number, int(self.before.step), self.recorder.folder)

    def check(self, info: Any, step: int) -> dict[str, Any]:
        """What of the block up to `step` is only logged. Raises InnerloopError unless all else is finite."""
        folder = self.recorder.folder
        block = Block(self.before, self.loop.run, self.distribution, step, folder)
        incidents = self.experiment.check(info, block)
        nan_diagnosis.check_params(self.state.params, step, folder)
        return incidents

    def metrics(self, info: Any, step: int) -> dict[str, float]:
        """Means over the dispatch, and the validation scores where they are due."""
        series = self.experiment.series(info)
        means = {name: float(np.mean(np.asarray(x, np.float64))) for name, x in series.items()}
        every = self.config.validate_every
        if due(every, step, info.outer_loss.shape[0]) or (every and step == self.config.meta_steps):
            means |= self.validate()
        return means

    @cached_property
    def validation(self) -> Evaluator:
        """The evaluation on validation tasks, compiled once for the whole run."""
        tasks = self.experiment.config.evaluation.validation_tasks
        return self.experiment.evaluator(self.held_out, tasks=tasks, last_only=True)

    def validate(self) -> dict[str, float]:
        """Scores on validation tasks, the same in every run: those of seed 0; and how many of them diverged."""
        params = self.experiment.for_tasks(self.state.params)
        curve = join(list(self.validation(params, held_out_key(0, "validation"))))
        return {f"validation_{name}": value for name, value in divergence.means(curve).items()}

    def progress(self, step: int, metrics: dict[str, float]) -> Progress:
        """Speed so far and time left."""
        per_second = (step - self.first) / max(time.monotonic() - self.begun, 1e-9)
        speeds = {f"{what}_per_second": n * per_second for what, n in self.experiment.work().items()}
        left = (self.config.meta_steps - step) / per_second
        return Progress(step, self.config.meta_steps, seconds_left=left, metrics=metrics, **speeds)


def due(every: int, step: int, length: int) -> bool:
    """Whether a multiple of `every` was reached or passed in the last `length` steps."""
    return every > 0 and step // every > (step - length) // every


def reached(parts: int, total: int, step: int, length: int) -> bool:
    """Whether the end of one of `parts` equal parts of the run was reached or passed in the last `length` steps."""
    return step * parts // total > (step - length) * parts // total
