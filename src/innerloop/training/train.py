"""A training run from a config: meta-steps in long dispatches, validation, logging, checkpoints, resume.

A run is a pure function of its config: task keys are derived from the seed and the step number, so a run that is
stopped anywhere and resumed ends with the same bits as an uninterrupted one.
"""

from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import jax

from innerloop.config.data_settings import check_read
from innerloop.config.schema import Config
from innerloop.config.serialization import from_json, to_json
from innerloop.config.unread_settings import check_effective
from innerloop.engine.meta_state import MetaState
from innerloop.errors import InnerloopError
from innerloop.io.digests import sha256
from innerloop.parallel import multi_process
from innerloop.parallel.precision import check_available, products
from innerloop.training import warm_start
from innerloop.training.experiments.build import build, check_chunk
from innerloop.training.experiments.schedule import Schedule
from innerloop.training.experiments.supervised import SupervisedExperiment
from innerloop.training.experiments.table import TableExperiment
from innerloop.training.interruption.signals import graceful_shutdown
from innerloop.training.loop import TrainingLoop
from innerloop.training.memory.memory_plan import MemoryPlan, apply_plan, available_memory, memory_plan
from innerloop.training.memory.model_size import check_kept
from innerloop.training.memory.out_of_memory import explain_oom
from innerloop.training.progress.progress import Progress
from innerloop.training.recording import contact_sheet
from innerloop.training.recording.recorder import Recorder, RunRecorder
from innerloop.training.run_length import resumed_config
from innerloop.training.storage import checkpoint_manager, provenance, weights
from innerloop.training.storage.lock import exclusive_lock
from innerloop.training.storage.run_directory import RunFile, RunFolder


def train(
    config: Config | None,
    folder: Path | str,
    *,
    resume: bool = False,
    on_progress: Callable[[Progress], None] = lambda progress: None,
    on_plan: Callable[[MemoryPlan], None] = lambda plan: None,
    on_pictures: Callable[[Path], None] = lambda path: None,
) -> MetaState:
    """Meta-train into `folder` and return the final state.

    With several processes (`innerloop.parallel.multi_process`), each of them calls this function. The config and folder
    of the first process are used, and only that process writes.

    Args:
        config: the settings of the run. With `resume`, None or the run's own settings, of which only
            `outer.meta_steps` may differ, if the outer step size does not decay over the run.
        folder: the run's folder.
        resume: whether to continue the run in the folder from its last checkpoint.
        on_progress: called after every log line. If it raises an exception, the state is saved before the run ends.
        on_plan: called with the memory plan before anything is compiled.
        on_pictures: called with the path of the contact sheet, if the images are read from a folder.

    Returns:
        The final state.

    Raises:
        InnerloopError: if a setting is wrong, the disk is full, memory ran out, or another training run uses
            the folder.
        Diverged: an InnerloopError that names the first meta-step, task and inner step that were not finite.
        Stopped: SIGINT, SIGTERM or SIGHUP was received, and the state was saved within seconds: at the end of a
            dispatch of about a second or, if one meta-step takes longer, as it was before that meta-step.
        Lost: another process ended or cannot be reached.
    """
    run, writes, fit = RunFolder(folder), multi_process.is_primary(), None
    with graceful_shutdown() as guard, multi_process.detect_lost_process(), ExitStack() as chosen:
        if not isinstance(config, Config | None):
            hint = "pass innerloop.preset(NAME), for example"
            raise InnerloopError("train", "`config` must be a config", got=repr(config), hint=hint)
        config = settings(resumed_config(run, config) if resume and writes else config)
        if resume and writes:
            check_kept(config, run.checkpoints)
        elif writes:
            check_read(config.data)
            check_effective(config)
        if writes:
            Schedule.from_config(config).check_lines("outer.log_every")
        check_available(config.precision)
        chosen.enter_context(products(config.precision))
        check_chunk(config)
        experiment = build(config, run.path if resume else None)
        if isinstance(experiment, SupervisedExperiment):
            experiment.check_classes()
            fit = memory_plan(experiment, min(multi_process.all_gather_int(available_memory())))
            on_plan(fit)
            experiment = apply_plan(experiment, fit)
        data = experiment.data_hashes()
        multi_process.check_same(provenance.digest(config, data), "settings, versions or data")
        if not writes:
            with explain_oom(fit):
                return TrainingLoop(experiment, Recorder(run.path), on_progress, guard).run_to_end()
        new, start = run.undone_unless_resumable(new=not resume), warm_start.WarmStart(config.model.start)
        with new as undo, guard.undoing(undo), exclusive_lock(run), explain_oom(fit):
            if resume:
                run.check_data(data)
            else:
                start.params(jax.eval_shape(experiment.init_params))  # raises before anything is written
                run.create(config, data | start.hashes)
                if isinstance(experiment, TableExperiment):
                    run.write(RunFile.TABLE, experiment.table.preparation.to_json())
                pictures = experiment.splits if isinstance(experiment, SupervisedExperiment) else None
                if config.data.spec.needs_folder and pictures:
                    on_pictures(contact_sheet.write(run, pictures))
            with checkpoint_manager.opened(run.make(RunFile.CHECKPOINTS), run.identity(data)) as checkpoints:
                own = experiment.config
                save = lambda path, params, facts: weights.save(path, params, own, facts)
                recorder = RunRecorder(run, save, checkpoints, start)
                loop = TrainingLoop(experiment, recorder, on_progress, guard)  # restores the last checkpoint
                if config.outer.meta_steps != run.config().outer.meta_steps:
                    run.change_length(config.outer.meta_steps)
                return loop.run_to_end()


def settings(config: Config | None) -> Config:
    """The first process's config, in every process. Raises InnerloopError if it has none, or if another one differs."""
    if config is None and multi_process.is_primary():
        raise InnerloopError("train", "needs a config", hint="pass a preset's config, or resume a run")
    digest = b"" if config is None else sha256([to_json(config).encode()])
    first = multi_process.from_first(digest)  # a statement apart: all processes must call it
    multi_process.check_same(digest or first, "settings")
    if config is not None:
        # The round trip checks it as a reader would: no NaN.
        config = warm_start.absolute(from_json(to_json(config), "config"))
    if config is not None and not multi_process.is_multi_process():
        return config
    own = b"" if config is None else to_json(config).encode()
    return from_json(multi_process.from_first(own).decode())
