"""`fit`: a training run in a folder, for your own parameters, algorithm and tasks.

It works like `innerloop.train`, with the same loop, checkpoints and records, but needs no config.
"""

import json
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optax
from jax.sharding import Mesh

from innerloop.config.bounds import SEED
from innerloop.engine.algorithm import Algorithm
from innerloop.engine.evaluation.evaluate import Score
from innerloop.engine.meta_state import MetaState
from innerloop.engine.types import Params, TaskDistribution
from innerloop.errors import InnerloopError, check_count, check_flag
from innerloop.io.digests import sha256
from innerloop.io.untrusted import JsonObject, read_text
from innerloop.tasks.iterator_loop import IteratorOuterLoop
from innerloop.tasks.streaming import StreamedOuterLoop
from innerloop.training.custom import fit_settings
from innerloop.training.custom.best_validation import BestRule, Mode, best_rule
from innerloop.training.custom.custom_run import CustomRun, Validation, loop_over
from innerloop.training.custom.fit_arguments import check_one_process, check_parameters, count
from innerloop.training.custom.fit_recorder import FitRecorder
from innerloop.training.experiments.schedule import Schedule
from innerloop.training.interruption.signals import graceful_shutdown
from innerloop.training.loop import TrainingLoop
from innerloop.training.memory.out_of_memory import explain_oom
from innerloop.training.progress.callbacks import Callback, callbacks_running, check_callbacks
from innerloop.training.progress.progress_line import ProgressLine
from innerloop.training.storage import checkpoint_manager
from innerloop.training.storage.lock import exclusive_lock
from innerloop.training.storage.own_weights import load_params
from innerloop.training.storage.run_directory import RunFile, RunFolder

OOM = "vectorise fewer tasks at a time (`chunk=1`), lower `meta_batch`, or set `InnerLoop(derivative='rematerialised')`"


@dataclass(frozen=True)
class Fitted:
    """The result of `fit`.

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
        last = self.metrics[-1] if self.metrics else {}
        scores = [f"{n}={x}" for n, x in last.items() if n == "outer_loss" or n.startswith("validation_")]
        ended = [f"step={last.get('step')}", *scores, f"best_step={self.best_step}", f"folder={self.folder}"]
        return f"<Fitted: {', '.join(ended)}>"

    @property
    def params(self) -> Params:
        """The meta-parameters after the last meta-step."""
        return self.state.params


def fit(
    algorithm: Algorithm,
    params: Params,
    tasks: Any,
    *,
    optimizer: optax.GradientTransformation,
    meta_batch: int,
    meta_steps: int,
    folder: Path | str,
    seed: int = 0,
    chunk: int | None = None,
    mesh: Mesh | None = None,
    validation: TaskDistribution | None = None,
    score: Score | None = None,
    validate_every: int = 500,
    validation_tasks: int = 200,
    monitor: str | None = None,
    mode: Mode | None = None,
    patience: int | None = None,
    log_every: int = 100,
    checkpoint_every: int = 1000,
    callbacks: Sequence[Callback] = (),
    progress: bool = True,
    resume: bool = False,
) -> Fitted:
    """Meta-train into a folder, with checkpoints, metrics, validation and exact resume.

    The result is bit-identical to that of `OuterLoop(...).run` from `init(params, jax.random.key(seed))`, however often
    the run is interrupted and resumed.

    Args:
        algorithm: as for `OuterLoop`.
        params: the parameters of a model.
        tasks: a distribution of tasks, `StreamedEpisodes`, or meta-batches as for `IteratorOuterLoop`, which are read
            `log_every` at a time. A run on meta-batches can be resumed only if they come from a function of the number
            of meta-steps taken.
        optimizer: as for `OuterLoop`.
        meta_batch: as for `OuterLoop`.
        meta_steps: the length of the run; a resumed run may be made longer.
        folder: the run's folder.
        seed: determines which tasks are drawn.
        chunk: as for `OuterLoop`.
        mesh: as for `OuterLoop`.
        validation: the distribution of held-out tasks; every run is validated on the same ones.
        score: the score on held-out tasks, as for `evaluate`.
        validate_every: the number of meta-steps between validations; each runs at the end of a block of `log_every`.
        validation_tasks: the number of held-out tasks, at least 2.
        monitor: the score that selects the best weights (None: `loss`, or the only score).
        mode: whether lower (`min`) or higher (`max`) is better (None: known for `loss`, `accuracy` and `return`).
        patience: the number of validations without improvement after which the run ends (None: never).
        log_every: the number of meta-steps in a block; one line of metrics holds the means over a block.
        checkpoint_every: the number of meta-steps between checkpoints; each is written at the end of a block.
        callbacks: called after every block, to log, plot or end the run.
        progress: whether to show progress on standard error if the run takes more than two seconds.
        resume: whether to continue from the last checkpoint in the folder. If there is none, the run starts from the
            beginning, so a script can be restarted unchanged.

    Raises:
        InnerloopError: an argument is wrong, the folder holds another run, memory ran out, or files cannot be written.
        Diverged: an InnerloopError that names the first meta-step, task and inner step that were not finite.
        Stopped: SIGINT, SIGTERM or SIGHUP was received, and the state was saved.
    """
    check_one_process()
    check_parameters(params)
    check_callbacks(callbacks)
    for name, flag in (("progress", progress), ("resume", resume)):
        check_flag("fit", name, flag)
    every = count("validate_every", validate_every)
    schedule = Schedule(
        count("meta_steps", meta_steps),
        count("log_every", log_every),
        count("checkpoint_every", checkpoint_every),
        0 if validation is None else every,
        count("validation_tasks", validation_tasks, 2),
    )
    seed = check_count("fit", "seed", seed, int(SEED.low), int(SEED.high))
    meta_batch = count("meta_batch", meta_batch)
    patience = None if patience is None else count("patience", patience)
    chunk = None if chunk is None else count("chunk", chunk)
    loop = loop_over(tasks, algorithm, optimizer, meta_batch=meta_batch, chunk=chunk, mesh=mesh)
    held_out = None if validation is None else Validation(validation, score)
    run = CustomRun(loop, algorithm.init(params), tasks, held_out, schedule, seed)
    rule = rule_of(run, score, monitor, mode, patience)
    settings = fit_settings.settings_of(run, rule, chunk, mesh)
    told_too = [ProgressLine()] if progress else []
    return _run(run, RunFolder(folder), rule, settings, [*callbacks, *told_too], resume)


def _run(
    run: CustomRun,
    folder: RunFolder,
    rule: BestRule | None,
    settings: JsonObject,
    callbacks: Sequence[Callback],
    resume: bool,
) -> Fitted:
    """Run the training once its parts are known."""
    with (
        graceful_shutdown() as guard,
        explain_oom(None, "fit", OOM),
        _begun(run, folder, settings, resume),
        ExitStack() as ends,
    ):
        if isinstance(run.loop, StreamedOuterLoop):
            ends.enter_context(run.loop)  # its thread ends with the run
        identity = sha256([read_text(folder.path / RunFile.FIT, follow=False).encode()])
        place = folder.make(RunFile.CHECKPOINTS)
        checkpoints = ends.enter_context(checkpoint_manager.opened(place, identity))
        recorder = FitRecorder(folder, checkpoints, rule)
        tell_all = lambda progress: [callback.on_block(progress) for callback in callbacks]
        loop = TrainingLoop(run, recorder, lambda progress: any(tell_all(progress)), guard)
        ends.enter_context(callbacks_running(callbacks, folder.path, settings, int(loop.state.step)))
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
                check_resumable(run)
            folder.check_length(run.schedule.meta_steps, "meta_steps")
            fit_settings.check_same(folder, settings)
        else:
            folder.begin(RunFile.FIT, json.dumps(settings, indent=2) + "\n")
        yield


def rule_of(
    run: CustomRun, score: Score | None, monitor: str | None, mode: Mode | None, patience: int | None
) -> BestRule | None:
    """How validations are compared; None without validation. Raises InnerloopError for invalid settings."""
    if run.validation is not None:
        names = run.validation.check(run.loop.algorithm, run.params, run.seed)
        return best_rule(names, monitor, mode, patience)
    settings = {"patience": patience, "monitor": monitor, "mode": mode, "score": score}
    for name, value in settings.items():
        if value is not None:
            raise InnerloopError(
                "fit", f"`{name}` needs a validation", hint="give held-out tasks as `validation`"
            )
    return None


def check_resumable(run: CustomRun) -> None:
    """Raise InnerloopError if the meta-batches come from an iterator, which cannot be resumed in the middle."""
    if isinstance(run.loop, IteratorOuterLoop) and not run.loop.resumable:
        wrong = "an iterator cannot be resumed exactly: how far it was read is not known"
        hint = (
            "pass a function `tasks(step)` that returns an iterator over the meta-batches from that step on"
        )
        raise InnerloopError("resume", wrong, hint=hint)
