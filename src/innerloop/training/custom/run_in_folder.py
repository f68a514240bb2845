"""Carries out a run on the caller's own parts in a folder, with the loop, checkpoints and records of every run."""

import json
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from innerloop.engine.meta_state import MetaState
from innerloop.engine.types import Params
from innerloop.io.digests import sha256
from innerloop.io.untrusted import JsonObject, read_text
from innerloop.training.custom import fit_settings
from innerloop.training.custom.best_validation import BestRule
from innerloop.training.custom.custom_run import CustomRun
from innerloop.training.custom.fit_recorder import FitRecorder
from innerloop.training.interruption.signals import graceful_shutdown
from innerloop.training.loop import TrainingLoop
from innerloop.training.memory.out_of_memory import explain_oom
from innerloop.training.progress.callbacks import Callback, callbacks_running, ended_by
from innerloop.training.progress.progress_line import ProgressLine
from innerloop.training.storage import checkpoint_manager
from innerloop.training.storage.lock import exclusive_lock
from innerloop.training.storage.own_weights import load_params
from innerloop.training.storage.run_directory import RunFile, RunFolder


@dataclass(frozen=True)
class Fitted:
    """The result of `fit` or `fit_policy`.

    Attributes:
        state: the state of the outer loop after the last meta-step.
        best_params: the meta-parameters with the best validation score; without validation, those of `state`.
        best_step: the meta-step of the best validation whose weights are kept (None: there was none, or the resumed
            run ended before it was reached again).
        metrics: the lines of `metrics.jsonl`.
        folder: the run's folder.
    """

    state: MetaState
    best_params: Params
    best_step: int | None
    metrics: list[JsonObject]
    folder: Path

    def __repr__(self) -> str:
        last, shown = self.metrics[-1] if self.metrics else {}, ("outer_loss", "return_", "validation_")
        scores = [f"{n}={x}" for n, x in last.items() if n.startswith(shown)]
        ended = [f"step={last.get('step')}", *scores, f"best_step={self.best_step}", f"folder={self.folder}"]
        return f"<Fitted: {', '.join(ended)}>"

    @property
    def params(self) -> Params:
        """The meta-parameters after the last meta-step."""
        return self.state.params


def run_in_folder(
    run: CustomRun,
    path: Path | str,
    rule: BestRule | None,
    settings: JsonObject,
    callbacks: Sequence[Callback],
    *,
    progress: bool,
    resume: bool,
) -> Fitted:
    """Run the training once its parts are known. Raises InnerloopError, Diverged and Stopped as `fit`."""
    who, folder = run.CALLER.who, RunFolder(path)
    callbacks = [*callbacks, *([ProgressLine(who)] if progress else [])]
    with (
        graceful_shutdown() as guard,
        explain_oom(None, who, run.OOM),
        _begun(run, folder, settings, resume),
        ExitStack() as ends,
    ):
        if isinstance(run.loop, AbstractContextManager):
            ends.enter_context(run.loop)  # the thread that streams episodes ends with the run
        identity = sha256([read_text(folder.path / RunFile.FIT, follow=False).encode()])
        place = folder.make(RunFile.CHECKPOINTS)
        checkpoints = ends.enter_context(checkpoint_manager.opened(place, identity))
        recorder = FitRecorder(folder, checkpoints, rule)
        loop = TrainingLoop(run, recorder, partial(ended_by, callbacks), guard)
        step = int(loop.state.step)
        if step < run.schedule.meta_steps and not recorder.ended():
            folder.remove(folder.weights.name)  # those of an earlier end
        ends.enter_context(callbacks_running(callbacks, folder.path, settings, step))
        state = loop.run_to_end()
    best = load_params(folder.path, run.params, "best") if recorder.best.step is not None else state.params
    return Fitted(state, best, recorder.best.step, folder.metrics(), folder.path)


@contextmanager
def _begun(run: CustomRun, folder: RunFolder, settings: JsonObject, resume: bool) -> Iterator[None]:
    """Lock the folder of a new or resumed run. Raises InnerloopError if the folder belongs to another run."""
    again = resume and folder.is_fit
    if not again:
        run.schedule.check_lines("log_every")
    with folder.undone_unless_resumable(new=not again), exclusive_lock(folder):
        if again:
            if folder.has_checkpoint():
                run.check_resumable()
            folder.check_length(run.schedule.meta_steps, "meta_steps")
            fit_settings.check_same(folder, settings)
        else:
            folder.begin(RunFile.FIT, json.dumps(settings, indent=2) + "\n")
        yield
