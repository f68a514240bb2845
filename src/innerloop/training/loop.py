"""The training loop: blocks of meta-steps in dispatches of about a second, with checks, validation and checkpoints."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from functools import cached_property

import numpy as np
from jaxtyping import PyTree

from innerloop.engine.evaluation.curve import join
from innerloop.engine.meta_state import MetaState, copy_to_host
from innerloop.errors import InnerloopError
from innerloop.io.untrusted import JsonObject
from innerloop.parallel import multi_process
from innerloop.parallel.mesh import on_host
from innerloop.parallel.param_sharding import model_shards_of
from innerloop.training.diagnosis import divergence
from innerloop.training.diagnosis.nan_diagnosis import Block, outputs_by_layer
from innerloop.training.experiments.experiment import Evaluator, Trainable, held_out_key
from innerloop.training.interruption.signals import Guard, Stopped
from innerloop.training.progress.pace import Pace
from innerloop.training.progress.progress import Progress
from innerloop.training.recording.block_log import EMPTY, BlockLog
from innerloop.training.recording.recorder import Recorder


class TrainingLoop:
    """One run in progress. With several processes, each has its own loop; only the first one's recorder writes.

    The run ends early if `on_progress` returns true or the recorder says so.
    """

    def __init__(
        self,
        experiment: Trainable,
        recorder: Recorder,
        on_progress: Callable[[Progress], bool | None],
        guard: Guard,
    ):
        self.experiment, self.recorder = experiment, recorder
        self.on_progress, self.guard = on_progress, guard
        self.schedule = experiment.schedule
        self.loop = experiment.outer_loop()
        # Here, so that too few classes are reported before training.
        self.held_out = experiment.held_out_tasks("validation")
        # A model too large for one device is first created on the host.
        with on_host() if model_shards_of(self.loop.mesh) > 1 else nullcontext():
            fresh = lambda params: experiment.start(self.loop, params)
            first = recorder.first_state(experiment.init_params(), fresh)
            self.state = multi_process.tree_from_first(first)
        step = int(self.state.step)
        self.log = recorder.block_log(step, step % self.schedule.log_every)
        self.before, self.log_before = copy_to_host(self.state), self.log
        """The state and the log before the last dispatch, to which a run may be cut back."""

    def run_to_end(self) -> MetaState:
        """Run all remaining meta-steps, then write the final weights."""
        total, step, every = self.schedule.meta_steps, int(self.state.step), self.schedule.log_every
        rescue = lambda number: self.stopped(number, self.before, self.log_before)
        # Several processes must stop together, so only at the end of a dispatch.
        with self.recorder.open(), self.guard.saving(None if multi_process.is_multi_process() else rescue):
            self.pace = Pace(self.loop.granularity(self.state.key, self.schedule.max_dispatch))
            if step == 0 and self.schedule.snapshots:
                self.recorder.snapshot(self.state)
            # A run that was stopped in the middle of a block, and cut to that length, has yet to log it.
            unlogged = any(multi_process.all_gather_int(len(self.log.series)))
            ended = (step >= total and not unlogged) or self.recorder.ended()
            while not ended:
                end = min(step - step % every + every, total)
                asked = self.block(step, end)
                ended = asked or end == total or self.recorder.ended()
                self.save_if_due(end, ended)
                step = end
            self.recorder.finish(self.state)
        return self.state

    def save_if_due(self, step: int, ended: bool) -> None:
        """Save after a block if due or if a signal was received; then raise Stopped, unless that was the end."""
        stop = self.asked_to_stop()
        if stop and not ended:
            raise self.stopped(stop, self.state, EMPTY)
        if ended or self.schedule.saves(step):
            self.recorder.save(self.state, EMPTY)

    def stopped(self, number: int, state: MetaState, log: BlockLog) -> Stopped:
        """Save this state; the exception that says so."""
        self.recorder.save(state, log, wait=True)
        return Stopped(number, int(state.step), self.recorder.folder)

    def asked_to_stop(self) -> int:
        """The number of the signal received by any process, since all stop together; 0 for none."""
        return max(multi_process.all_gather_int(self.guard.number))

    def block(self, step: int, end: int) -> bool:
        """Run, log and report the meta-steps from `step` to `end`; whether the run ends there."""
        while step < end:
            length = self.pace.next(end - step)
            self.before, self.log_before = copy_to_host(self.state), self.log
            with self.computing():
                series, incidents = self.dispatch(step, length)
            step += length
            self.log = self.log.extended(series, incidents)
            if step < end and (stop := self.asked_to_stop()):
                raise self.stopped(stop, self.state, self.log)
        with self.computing():
            scores = self.validate_if_due(end)
        done, self.log = self.log, EMPTY
        metrics = done.means() | scores
        with self.saved_first(self.before, self.log_before):  # before the block, as its line may be missing
            self.recorder.log(self.state, metrics, done.incidents)
            if self.schedule.keeps(step):
                self.recorder.snapshot(self.state)
        with self.saved_first(self.state, EMPTY):
            asked = bool(self.on_progress(self.progress(step, metrics)))
        return any(multi_process.all_gather_int(asked))  # all processes end together

    def dispatch(self, step: int, length: int) -> tuple[dict[str, PyTree], JsonObject]:
        """Run the next `length` meta-steps; returns the values of each, and the incidents."""
        begun, before, max_steps = time.monotonic(), self.before, self.schedule.max_dispatch
        # With `max_steps`, one program is compiled for the whole run.
        self.state, info = self.loop.run(self.state, length, on_nonfinite="ignore", max_steps=max_steps)
        locate = lambda good: self.loop.locate(before, good, outputs_by_layer, max_steps)
        block = Block(step + length, self.recorder.folder, self.state.params, locate)
        incidents = self.experiment.check(info, block)
        series = {name: np.asarray(x, np.float64) for name, x in self.experiment.series(info).items()}
        self.pace.record(length, time.monotonic() - begun)
        return series, incidents

    @contextmanager
    def computing(self) -> Iterator[None]:
        """Within, a signal or an error may end the run with the state before the last dispatch."""
        worth_it = self.recorder.saves_on_failure and int(self.before.step) > 0
        with self.saved_first(self.before, self.log_before, worth_it), self.guard.computing():
            yield

    @contextmanager
    def saved_first(self, state: MetaState, log: BlockLog, worth_it: bool = True) -> Iterator[None]:
        """If an error is raised, save this state first, if that is worth it and possible."""
        try:
            yield
        except (Exception, SystemExit):
            if worth_it:
                with suppress(InnerloopError):
                    self.recorder.save(state, log, wait=True)
            raise

    def validate_if_due(self, end: int) -> dict[str, float]:
        """The validation scores if they are due at the end of a block, else none."""
        if not self.schedule.validates(end):
            return {}
        first, begun = "validation" not in self.__dict__, time.monotonic()
        scores = self.validate()
        if first:  # the first one includes compilation
            self.pace.exclude(time.monotonic() - begun)
        return scores

    @cached_property
    def validation(self) -> Evaluator:
        """The evaluation on validation tasks, compiled once for the whole run."""
        number = self.schedule.validation_tasks
        return self.experiment.evaluator(self.held_out, num_tasks=number, last_only=True)

    def validate(self) -> dict[str, float]:
        """Scores on validation tasks, which are the same in every run (seed 0), and how many of them diverged."""
        params = self.experiment.for_tasks(self.state.params)
        curve = join(list(self.validation(params, held_out_key(0, "validation"))))
        return {f"validation_{name}": value for name, value in divergence.means(curve).items()}

    def progress(self, step: int, metrics: dict[str, float]) -> Progress:
        """Speed so far and time left, without compilation; NaN until the second dispatch."""
        per_second = self.pace.per_second()
        speeds = {f"{what}_per_second": n * per_second for what, n in self.experiment.work().items()}
        left = self.schedule.meta_steps - step
        return Progress(
            step,
            self.schedule.meta_steps,
            seconds_left=left / per_second if left else 0.0,
            metrics=metrics,
            params=self.experiment.for_tasks(self.state.params),
            **speeds,
        )
