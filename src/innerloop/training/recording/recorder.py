"""Recorders of a run: one that writes to its folder, and its base class, which records nothing."""

import os
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import jax

from innerloop.engine.meta_state import MetaState
from innerloop.engine.types import Params
from innerloop.errors import InnerloopError
from innerloop.io import safetensors_reader
from innerloop.io.text import as_json
from innerloop.io.untrusted import JsonObject
from innerloop.parallel.mesh import local_copy
from innerloop.training.recording.block_log import EMPTY, BlockLog, of_record
from innerloop.training.storage import checkpoint
from innerloop.training.storage.checkpoint_manager import Manager
from innerloop.training.storage.provenance import environment
from innerloop.training.storage.run_directory import RunFile, RunFolder
from innerloop.training.storage.tensorboard import ScalarWriter
from innerloop.training.warm_start import WarmStart

Fresh = Callable[[Params], MetaState]
"""Makes the state before the first meta-step from parameters."""

SaveWeights = Callable[[Path, Params, JsonObject], None]
"""Writes parameters and facts to a file, with the description of the run."""


class Recorder:
    """Records nothing, in a process that only computes its share of a run; subclasses record."""

    saves_on_failure = False
    """Whether the last good state is saved if a dispatch fails, unless nothing was trained."""

    def __init__(self, folder: Path):
        self.folder = folder

    def first_state(self, params: Params, fresh: Fresh) -> MetaState:
        """The state to start or resume from; `params` are random weights.

        Without a record, only its shapes and types matter: the values come from the first process.
        """
        return fresh(params)

    @contextmanager
    def open(self) -> Iterator[None]:
        """Open the record while the run is in progress, until it ends or stops."""
        yield

    def log(self, state: MetaState, metrics: dict[str, float], incidents: JsonObject) -> None:
        """Record one block, and the state after it."""

    def snapshot(self, state: MetaState) -> None:
        """Save the initialisation at this step; a resumed run writes the same bits again."""

    def block_log(self, step: int, steps: int) -> BlockLog:
        """The log of the `steps` meta-steps of the block in which the run last stopped, at `step`."""
        return EMPTY

    def save(self, state: MetaState, log: BlockLog, *, wait: bool = False) -> None:
        """Write a checkpoint; in the middle of a block, with the block's log so far. `wait`: until it is complete."""

    def ended(self) -> bool:
        """Whether the run should end early."""
        return False

    def finish(self, state: MetaState) -> None:
        """Write the final weights."""


class RunRecorder(Recorder):
    """Writes metrics, TensorBoard events, snapshots, checkpoints, weights and training time to the run's folder."""

    def __init__(self, run: RunFolder, save_weights: SaveWeights, checkpoints: Manager, start: WarmStart):
        super().__init__(run.path)
        self.run, self.save_weights, self.checkpoints, self.start = run, save_weights, checkpoints, start

    def first_state(self, params: Params, fresh: Fresh) -> MetaState:
        """The state of the last checkpoint, or a fresh one; metrics after that step are discarded."""
        first = fresh(params)
        state = checkpoint.restore(self.checkpoints, first)
        if state is None:
            self.run.check_not_ended()
            self.start.check_unchanged(self.run.known())
            state = fresh(self.start.params(params)) if self.start.source else first
        self.run.rewind(int(state.step))
        self.run.note_circumstances(int(state.step))
        return state

    @contextmanager
    def open(self) -> Iterator[None]:
        """Continue the clock, and open a new file for TensorBoard."""
        self.board = board = ScalarWriter(self.run.make(RunFile.TENSORBOARD))
        try:
            self.begun, self.earlier = time.monotonic(), self.run.seconds()
            yield
        finally:
            board.close()
            self.run.mark_written(board.path, board.about)

    def log(self, state: MetaState, metrics: dict[str, float], incidents: JsonObject) -> None:
        """Write one line of `metrics.jsonl`, and the scalars for TensorBoard."""
        step = int(state.step)
        self.run.log({"step": step, **metrics, **incidents})
        for name, value in metrics.items():
            self.board.add_scalar(name, value, step)

    def snapshot(self, state: MetaState) -> None:
        """Save the initialisation at this step; a resumed run writes the same bits again."""
        self.run.make(RunFile.SNAPSHOTS)
        self.write_weights(f"{RunFile.SNAPSHOTS}/{self.run.snapshot(int(state.step)).name}", state, {})

    def block_log(self, step: int, steps: int) -> BlockLog:
        """The folder's log of the current block."""
        return of_record(self.run.block_record(), step, steps) if steps else EMPTY

    def save(self, state: MetaState, log: BlockLog, *, wait: bool = False) -> None:
        """Write a checkpoint, and the training time so far."""
        if log.series:
            self.run.write(RunFile.BLOCK, as_json(log.to_json(int(state.step))) + "\n")
        checkpoint.save(self.checkpoints, jax.tree.map(local_copy, state))
        self.run.write_seconds(self.earlier + time.monotonic() - self.begun)
        if wait:
            checkpoint.finish(self.checkpoints)

    def finish(self, state: MetaState) -> None:
        """Write the final weights, once the last checkpoint is complete."""
        checkpoint.finish(self.checkpoints)
        facts = {"seconds": self.run.seconds(), "environment": environment()}
        if os.path.lexists(self.run.weights):
            self._warn_if_damaged(int(state.step))
        self.write_weights(self.run.weights.name, state, facts)

    def _warn_if_damaged(self, step: int) -> None:
        """Warn if the weights of an earlier end cannot be read."""
        try:
            safetensors_reader.read(self.run.weights, "trained weights")
        except InnerloopError:
            again = f"is written again from the state of meta-step {step}"
            text = f"innerloop: {self.run.weights} could not be read, and {again}."
            warnings.warn(text, stacklevel=2)

    def write_weights(self, name: str, state: MetaState, facts: JsonObject) -> None:
        """Write weights with `facts` and the description of the run into the file of this name."""
        path = self.run.path_of(name)
        self.save_weights(
            path, jax.tree.map(local_copy, state.params), {"meta_steps": int(state.step)} | facts
        )
        self.run.mark_written(path)
