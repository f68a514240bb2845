"""The training loop: blocks of meta-steps in dispatches of a second, their checks, validation, and when to save."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass
from functools import cached_property

import jax
import numpy as np
from jaxtyping import PyTree

from innerloop.engine.evaluate import join
from innerloop.engine.meta_state import MetaState, keep
from innerloop.errors import InnerloopError
from innerloop.io.untrusted import JsonObject
from innerloop.parallel import multi_process
from innerloop.parallel.mesh import on_the_host, own_copy
from innerloop.training import divergence, nan_diagnosis
from innerloop.training.block_log import EMPTY, BlockLog
from innerloop.training.experiment import Block, Evaluator, Experiment, held_out_key
from innerloop.training.pace import Pace
from innerloop.training.recorder import Recorder
from innerloop.training.signals import Guard
from innerloop.training.signals import Stopped as Stopped


@dataclass(frozen=True)
class Progress:
    """What a run says of itself after each block. Speeds and time left are NaN while only compilation can be timed."""

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
        step = int(self.state.step)
        self.log = recorder.block_log(step, step % self.config.log_every)

    def fresh(self, params: object) -> MetaState:
        """The state before the first meta-step."""
        return self.loop.start(params, self.experiment.keys().tasks)

    def run_to_end(self) -> MetaState:
        """All remaining meta-steps, then the final weights."""
        total, step, every = self.config.meta_steps, int(self.state.step), self.config.log_every
        # Processes stop together, hence at the end of a dispatch.
        rescue = None if multi_process.is_multi_process() else self.rescue
        with self.recorder.open(), self.guard.saving(rescue):
            self.pace = Pace(self.loop.unit(self.state.key, self.most))
            if step == 0 and self.config.snapshots:
                self.recorder.snapshot(self.state)
            while step < total:
                begun = step - step % every
                end = min(begun + every, total)
                self.block(step, end)
                self.save_if_due(end, end - begun)
                step = end
            self.recorder.finish(self.state)
        return self.state

    @property
    def most(self) -> int:
        """Meta-steps that are compiled for."""
        return max(1, min(self.config.log_every, self.config.meta_steps))

    def save_if_due(self, step: int, length: int) -> None:
        """Save after a block where that is due or a signal came; then raise Stopped unless that was the end."""
        stop, end = self.asked_to_stop(), step == self.config.meta_steps
        if due(self.config.checkpoint_every, step, length) or end or stop:
            self.recorder.save(self.state, EMPTY)
        if stop and not end:
            self.recorder.wait()
            raise Stopped(stop, step, self.recorder.folder)

    def asked_to_stop(self) -> int:
        """The number of the signal that came; asked of one process, all stop."""
        return max(multi_process.all_gather_int(max(self.guard.numbers, default=0)))

    def block(self, step: int, end: int) -> None:
        """The meta-steps from `step` to `end`, with what is logged and said of them."""
        scores: dict[str, float] = {}
        while step < end:
            length = self.pace.next(end - step)
            self.before, self.log_before = keep(jax.tree.map(own_copy, self.state)), self.log
            with self.guard.computing():
                series, incidents = self.dispatch(step, length)
                scores = self.validate_if_due(step + length, end)
            step += length
            self.log = self.log.extended(series, incidents)
            if step < end and (stop := self.asked_to_stop()):
                self.recorder.save(self.state, self.log)
                self.recorder.wait()
                raise Stopped(stop, step, self.recorder.folder)
        done, self.log = self.log, EMPTY
        metrics = done.means() | scores
        with self.saved_first(self.before, self.log_before):  # as if its line were not there
            self.recorder.log(step, metrics, done.incidents)
            if reached(self.config.snapshots, self.config.meta_steps, step, self.length(step)):
                self.recorder.snapshot(self.state)
        with self.saved_first(self.state, EMPTY):
            self.on_progress(self.progress(step, metrics))

    def length(self, end: int) -> int:
        """Meta-steps of the block that ends there."""
        return end - (end - 1) // self.config.log_every * self.config.log_every

    def dispatch(self, step: int, length: int) -> tuple[dict[str, PyTree], JsonObject]:
        """The next `length` meta-steps: values of every one of them, and what is only logged."""
        begun = time.monotonic()
        self.state, info = self.run(self.state, length)
        incidents = self.check(info, step + length)
        series = {name: np.asarray(x, np.float64) for name, x in self.experiment.series(info).items()}
        self.pace.took(length, time.monotonic() - begun)
        return series, incidents

    def run(self, state: MetaState, length: int) -> tuple[MetaState, PyTree]:
        """So many meta-steps, by the one program of the whole run."""
        return self.loop.run(state, length, most=self.most, on_nonfinite="ignore")

    @contextmanager
    def saved_first(self, state: MetaState, log: BlockLog) -> Iterator[None]:
        """Save this state before an error goes on its way, if it can be saved."""
        try:
            yield
        except (Exception, SystemExit):
            with suppress(InnerloopError):
                self.recorder.save(state, log)
                self.recorder.wait()
            raise

    def rescue(self, number: int) -> Stopped:
        """Save the state before the dispatch under way, which has not ended in time."""
        self.recorder.save(self.before, self.log_before)
        self.recorder.wait()
        return Stopped(number, int(self.before.step), self.recorder.folder)

    def check(self, info: object, step: int) -> JsonObject:
        """What of the dispatch up to `step` is only logged. Raises InnerloopError unless all else is finite."""
        folder = self.recorder.folder
        block = Block(self.before, self.run, self.distribution, step, folder)
        incidents = self.experiment.check(info, block)
        nan_diagnosis.check_params(self.state.params, step, folder)
        return incidents

    def validate_if_due(self, step: int, end: int) -> dict[str, float]:
        """The validation scores where they are due at the end of a block."""
        every = self.config.validate_every
        if step < end or not (
            due(every, step, self.length(end)) or (every and step == self.config.meta_steps)
        ):
            return {}
        first, begun = "validation" not in self.__dict__, time.monotonic()
        scores = self.validate()
        if first:  # it was compiled
            self.pace.wait(time.monotonic() - begun)
        return scores

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
        """Speed so far and time left, compilation left out; NaN while there was nothing else."""
        per_second = self.pace.per_second()
        speeds = {f"{what}_per_second": n * per_second for what, n in self.experiment.work().items()}
        left = self.config.meta_steps - step
        return Progress(
            step,
            self.config.meta_steps,
            seconds_left=left / per_second if left else 0.0,
            metrics=metrics,
            **speeds,
        )


def due(every: int, step: int, length: int) -> bool:
    """Whether a multiple of `every` was reached or passed in the last `length` steps."""
    return every > 0 and step // every > (step - length) // every


def reached(parts: int, total: int, step: int, length: int) -> bool:
    """Whether the end of one of `parts` equal parts of the run was reached or passed in the last `length` steps."""
    return step * parts // total > (step - length) * parts // total
