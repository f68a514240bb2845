"""The training loop: dispatches, validation, logs, checkpoints."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import jax
import numpy as np

from innerloop.engine.evaluate import Curve, join
from innerloop.engine.outer import MetaState
from innerloop.errors import InnerloopError
from innerloop.parallel import multi_process
from innerloop.parallel.mesh import on_the_host, own_copy
from innerloop.training import nan_diagnosis, warm_start
from innerloop.training.nan_diagnosis import check_finite
from innerloop.training.signals import Guard
from innerloop.training.signals import Stopped as Stopped
from innerloop.training.storage import checkpoint, weights
from innerloop.training.storage.run_directory import RunFolder, environment
from innerloop.training.storage.tensorboard import ScalarWriter
from innerloop.training.supervised import Experiment


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
    """One run in progress."""

    def __init__(
        self,
        experiment: Experiment,
        run: RunFolder,
        checkpoints: Any,
        watch: Callable[[Progress], None],
        guard: Guard,
    ):
        self.experiment, self.run, self.checkpoints, self.watch = experiment, run, checkpoints, watch
        self.guard = guard
        self.config = experiment.config.outer
        self.distribution = experiment.train_tasks()
        self.loop = experiment.outer_loop(self.distribution)
        self.held_out = experiment.held_out_tasks(
            "validation"
        )  # now: too few classes are told before training
        # What is too large for one device is first made on the host.
        with on_the_host() if self.config.model_shards > 1 else nullcontext():
            self.state = multi_process.tree_from_first(self.restored())

    def run_to_end(self) -> MetaState:
        """All remaining meta-steps, then the final weights."""
        total, step = self.config.meta_steps, int(self.state.step)
        # Processes stop together, hence at the end of a block.
        rescue = None if multi_process.is_multi_process() else self.rescue
        with self.board() as self.tensorboard, self.guard.saving(rescue):
            self.begun, self.first, self.earlier = time.monotonic(), step, self.run.seconds()
            if step == 0 and self.config.snapshots:
                self.snapshot(step)
            while step < total:
                length = min(self.config.log_every, total - step)
                step += length
                self.block(step, length)
                stop = max(
                    multi_process.all_gather_int(max(self.guard.numbers, default=0))
                )  # asked of one, all stop
                if due(self.config.checkpoint_every, step, length) or step == total or stop:
                    self.save(self.state)
                if stop and step < total:
                    self.saved()
                    raise Stopped(stop, step, self.run.path)
            self.finish(total)
        return self.state

    def block(self, step: int, length: int) -> None:
        """The `length` meta-steps up to `step`, with what is logged and said of them."""
        self.before = nan_diagnosis.keep(jax.tree.map(own_copy, self.state))
        with self.guard.computing():
            self.state, info = self.loop.run(self.state, length)
            incidents = self.experiment.incidents(info, step, self.run.path)
            self.check(info, step, self.before)
            metrics = self.metrics(info, step)
        with self.saved_first(self.before):  # as if the block had not been: its line is not there
            self.record(step, metrics, incidents)
            if reached(self.config.snapshots, self.config.meta_steps, step, length):
                self.snapshot(step)
        with self.saved_first(self.state):
            self.watch(self.progress(step, metrics))

    @contextmanager
    def saved_first(self, state: MetaState) -> Iterator[None]:
        """Save this state before an error goes on its way, if it can be saved."""
        try:
            yield
        except (Exception, SystemExit):
            with suppress(InnerloopError):
                self.save(state)
                self.saved()
            raise

    def rescue(self, number: int) -> Stopped:
        """Save the state before the block under way, which has not ended in time."""
        self.save(self.before)
        self.saved()
        return Stopped(number, int(self.before.step), self.run.path)

    def fresh(self, params: Any) -> MetaState:
        """The state before the first meta-step."""
        return self.loop.start(params, self.experiment.keys().tasks)

    def restored(self) -> MetaState:
        """The state of the last checkpoint, or a fresh one; the run's folder as it was then."""
        saved = checkpoint.restore(self.checkpoints, self.fresh(self.experiment.init_params()))
        if saved is None:
            warm_start.check_unchanged(self.experiment.config, self.run.known())
        state = self.fresh(warm_start.first_params(self.experiment)) if saved is None else saved
        self.run.rewind(int(state.step))
        self.run.note_circumstances(int(state.step))
        return state

    @contextmanager
    def board(self) -> Iterator[Any]:
        """Where TensorBoard's numbers go."""
        board = ScalarWriter(self.run.make("tensorboard"))
        try:
            yield board
        finally:
            board.close()
            self.run.note(board.path, board.about)

    def record(self, step: int, metrics: dict[str, float], incidents: dict[str, Any]) -> None:
        """Log one dispatch."""
        self.run.log({"step": step, **metrics, **incidents})
        for name, value in metrics.items():
            self.tensorboard.add_scalar(name, value, step)

    def finish(self, total: int) -> None:
        """Write the final weights."""
        self.saved()
        facts = {"meta_steps": total, "seconds": self.run.seconds(), "environment": environment()}
        weights.save(
            self.run.place(self.run.weights.name),
            jax.tree.map(own_copy, self.state.params),
            self.experiment.config,
            facts,
        )

    def saved(self) -> None:
        """Wait until the last checkpoint is whole."""
        checkpoint.finish(self.checkpoints)

    def save(self, state: MetaState) -> None:
        """Write a checkpoint, and the time that it took to get there."""
        checkpoint.save(self.checkpoints, jax.tree.map(own_copy, state))
        self.run.write_seconds(self.earlier + time.monotonic() - self.begun)

    def check(self, info: Any, step: int, before: MetaState) -> None:
        """Raise InnerloopError unless all is finite after the dispatch that began at `before`."""
        where = lambda good: nan_diagnosis.locate_nonfinite(
            self.experiment, self.distribution, self.loop.run, before, good
        )
        check_finite(info, step, self.run.path, where)
        nan_diagnosis.check_params(self.state.params, step, self.run.path)

    def snapshot(self, step: int) -> None:
        """Keep the initialisation of this moment; a resumed run writes the same bits again."""
        self.run.make("snapshots")
        path = self.run.place(f"snapshots/{self.run.snapshot(step).name}")
        weights.save(
            path, jax.tree.map(own_copy, self.state.params), self.experiment.config, {"meta_steps": step}
        )
        self.run.note(path)

    def metrics(self, info: Any, step: int) -> dict[str, float]:
        """Means over the dispatch, and the validation scores where they are due."""
        first = {"inner_loss_first": info.inner_losses[:, 0]} if info.inner_losses.shape[1] else {}
        series = {"outer_loss": info.outer_loss, "grad_norm": info.grad_norm, **first}
        series |= self.experiment.series(info)
        means = {name: float(np.mean(np.asarray(x, np.float64))) for name, x in series.items()}
        every = self.config.validate_every
        if due(every, step, info.outer_loss.shape[0]) or (every and step == self.config.meta_steps):
            means |= self.validate()
        return means

    @cached_property
    def validation(self) -> Callable[[Any, Any], Iterator[Curve]]:
        """The evaluation on validation tasks, compiled once for the whole run."""
        e = self.experiment
        tasks, last = e.config.evaluation.validation_tasks, (e.config.evaluation.steps,)
        return e.evaluator(self.held_out, tasks=tasks, record=last)

    def validate(self) -> dict[str, float]:
        """Scores on validation tasks after the last inner step."""
        params = self.experiment.for_tasks(self.state.params)
        curve = join(list(self.validation(params, jax.random.key(1))))
        return {f"validation_{name}": float(curve.mean(name)[-1]) for name in curve.scores}

    def progress(self, step: int, metrics: dict[str, float]) -> Progress:
        """Speed so far and time left."""
        seconds = max(time.monotonic() - self.begun, 1e-9)
        per_second = (step - self.first) / seconds
        return Progress(
            step,
            self.config.meta_steps,
            per_second * self.config.meta_batch,
            (self.config.meta_steps - step) / per_second,
            metrics,
            per_second * self.experiment.environment_steps,
        )


class Follower(TrainingLoop):
    """The same run in a process other than the first: it computes its share and writes nothing."""

    def restored(self) -> MetaState:
        """Shapes and types; the values come from the first process."""
        return self.fresh(self.experiment.init_params())

    @contextmanager
    def board(self) -> Iterator[Any]:
        """Nowhere."""
        yield None

    def record(self, step: int, metrics: dict[str, float], incidents: dict[str, Any]) -> None:
        """The first process logs."""

    def snapshot(self, step: int) -> None:
        """The first process keeps it."""

    def save(self, state: MetaState) -> None:
        """The first process saves."""

    def saved(self) -> None:
        """Nothing to wait for."""

    def finish(self, total: int) -> None:
        """The first process writes the weights."""


def due(every: int, step: int, length: int) -> bool:
    """Whether a multiple of `every` was reached or passed in the last `length` steps."""
    return every > 0 and step // every > (step - length) // every


def reached(parts: int, total: int, step: int, length: int) -> bool:
    """Whether the end of one of `parts` equal parts of the run was reached or passed in the last `length` steps."""
    return step * parts // total > (step - length) * parts // total
