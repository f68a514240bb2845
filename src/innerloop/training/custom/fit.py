"""`fit`: a training run in a folder, for your own parameters, algorithm and tasks.

It works like `innerloop.train`, with the same loop, checkpoints and records, but needs no config.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import optax
from jax.sharding import Mesh

from innerloop.engine.algorithm import Algorithm, described
from innerloop.engine.evaluation.evaluate import Score
from innerloop.engine.outer.outer_loop import OuterLoop
from innerloop.engine.types import Params, TaskDistribution
from innerloop.tasks.iterator_loop import IteratorOuterLoop
from innerloop.tasks.streaming import StreamedOuterLoop
from innerloop.training.custom.best_validation import BestRule, Mode, best_rule
from innerloop.training.custom.fit_arguments import (
    check_call,
    check_unvalidated,
    count,
    optional_count,
    schedule_of,
    seed_of,
)
from innerloop.training.custom.fit_programs import programs_of
from innerloop.training.custom.fit_settings import settings_of
from innerloop.training.custom.run_in_folder import Fitted, run_in_folder
from innerloop.training.custom.supervised_run import SupervisedRun, Validation, loop_over
from innerloop.training.progress.callbacks import Callback

WHO = "fit"

KINDS = {
    OuterLoop: "a distribution",
    StreamedOuterLoop: "streamed episodes",
    IteratorOuterLoop: "meta-batches",
}
"""The kind of tasks, by the outer loop that takes them."""


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
    check_call(WHO, params, callbacks, progress=progress, resume=resume)
    schedule = schedule_of(
        WHO,
        meta_steps=meta_steps,
        log_every=log_every,
        checkpoint_every=checkpoint_every,
        validate_every=validate_every,
        validation_tasks=validation_tasks,
        validated=validation is not None,
    )
    seed, meta_batch = seed_of(WHO, seed), count(WHO, "meta_batch", meta_batch)
    patience, chunk = optional_count(WHO, "patience", patience), optional_count(WHO, "chunk", chunk)
    loop = loop_over(tasks, algorithm, optimizer, meta_batch=meta_batch, chunk=chunk, mesh=mesh)
    held_out = None if validation is None else Validation(validation, score)
    run = SupervisedRun(loop, algorithm.init(params), schedule, seed, tasks, held_out)
    rule = _rule_of(run, score, monitor, mode, patience)
    own = {"tasks": KINDS[type(loop)]} | described(algorithm)
    settings = settings_of(run, rule, chunk, mesh, own, programs_of(run))
    return run_in_folder(run, folder, rule, settings, callbacks, progress=progress, resume=resume)


def _rule_of(
    run: SupervisedRun, score: Score | None, monitor: str | None, mode: Mode | None, patience: int | None
) -> BestRule | None:
    """How validations are compared; None without validation. Raises InnerloopError for invalid settings."""
    if run.validation is None:
        check_unvalidated(WHO, patience=patience, monitor=monitor, mode=mode, score=score)
        return None
    names = run.validation.check(run.loop.algorithm, run.params, run.seed)
    return best_rule(names, monitor, mode, patience)
