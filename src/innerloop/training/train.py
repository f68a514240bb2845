"""A training run from a config: meta-steps in long dispatches, validation, logging, checkpoints, resume.

A run is a pure function of its config: task keys are derived from the seed and the step number, so a run that is
stopped anywhere and resumed ends with the same bits as an uninterrupted one.
"""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path

import jax

from innerloop.config.data_settings import check_read
from innerloop.config.schema import Config
from innerloop.config.serialization import from_json, to_json
from innerloop.config.unread_settings import check_effective
from innerloop.errors import InnerloopError, check_flag
from innerloop.io.digests import sha256
from innerloop.io.untrusted import parse_json
from innerloop.parallel import multi_process
from innerloop.parallel.precision import check_available, products
from innerloop.training import warm_start
from innerloop.training.experiments.build import build, check_chunk
from innerloop.training.experiments.experiment import Experiment
from innerloop.training.experiments.schedule import Schedule
from innerloop.training.experiments.supervised import SupervisedExperiment
from innerloop.training.experiments.table import TableExperiment
from innerloop.training.interruption.signals import Guard, graceful_shutdown
from innerloop.training.loop import TrainingLoop
from innerloop.training.memory.memory_plan import MemoryPlan, apply_plan, available_memory, memory_plan
from innerloop.training.memory.model_size import check_kept
from innerloop.training.memory.out_of_memory import explain_oom
from innerloop.training.progress.callbacks import Callback, callbacks_running, check_callbacks, ended_by
from innerloop.training.progress.progress_line import ProgressLine
from innerloop.training.recording import contact_sheet
from innerloop.training.recording.recorder import Recorder, RunRecorder
from innerloop.training.run_length import resumed_config
from innerloop.training.storage import checkpoint_manager, provenance, weights
from innerloop.training.storage.lock import exclusive_lock
from innerloop.training.storage.run_directory import RunFile, RunFolder
from innerloop.training.trained import Trained


def train(
    config: Config | None,
    folder: Path | str,
    *,
    callbacks: Sequence[Callback] = (),
    progress: bool = True,
    resume: bool = False,
) -> Trained:
    """Meta-train by a config into a folder, with checkpoints, metrics, validation and exact resume.

    With several processes (`innerloop.parallel.multi_process`), each of them calls this function. The config and folder
    of the first process are used, and only that process writes and calls callbacks.

    Args:
        config: the settings of the run. With `resume`, None or the run's own settings, of which only
            `outer.meta_steps` may differ, if the outer step size does not decay over the run.
        folder: the run's folder.
        callbacks: called after every block of `outer.log_every` meta-steps, to log, plot or end the run.
        progress: whether to show progress on standard error if the run takes more than two seconds.
        resume: whether to continue the run in the folder from its last checkpoint.

    Returns:
        The trained initialisation, as from `load_trained`, with the final `state`.

    Raises:
        InnerloopError: if a setting is wrong, the disk is full, memory ran out, or another training run uses
            the folder.
        Diverged: an InnerloopError that names the first meta-step, task and inner step that were not finite.
        Stopped: SIGINT, SIGTERM or SIGHUP was received, and the state was saved within seconds: at the end of a
            dispatch of about a second or, if one meta-step takes longer, as it was before that meta-step.
        Lost: another process ended or cannot be reached.
    """
    check_callbacks(callbacks, "train")
    for name, flag in (("progress", progress), ("resume", resume)):
        check_flag("train", name, flag)
    run, writes = RunFolder(folder), multi_process.is_primary()
    told = [*callbacks, *([ProgressLine("train")] if progress else [])] if writes else []
    with graceful_shutdown() as guard, multi_process.detect_lost_process(), ExitStack() as ends:
        config = _checked(config, run, resume)
        ends.enter_context(products(config.precision))
        experiment, plan = _planned(build(config, run.path if resume else None))
        data = experiment.data_hashes()
        multi_process.check_same(provenance.digest(config, data), "settings, versions or data")
        ends.enter_context(explain_oom(plan))
        recorder, messages = Recorder(run.path), list[str]()
        if writes:
            recorder, messages = ends.enter_context(_recording(run, config, experiment, data, resume, guard))
        # This restores the last checkpoint.
        loop = TrainingLoop(experiment, recorder, partial(ended_by, told), guard)
        step, described = int(loop.state.step), parse_json(to_json(config), "config")
        if writes:
            _reopen(run, config, step)
        messages = (plan.messages if plan else []) + messages
        ends.enter_context(callbacks_running(told, run.path, described, step, messages))
        state = loop.run_to_end()
        params, facts = experiment.for_tasks(state.params), {"meta_steps": int(state.step)}
        return Trained(params, experiment, str(folder), facts, run.path if writes else None, state)


def _checked(config: Config | None, run: RunFolder, resume: bool) -> Config:
    """The settings of the run, the same in every process. Raises InnerloopError if one is wrong."""
    if not isinstance(config, Config | None):
        hint = "pass innerloop.preset(NAME), for example"
        raise InnerloopError("train", "`config` must be a config", got=repr(config), hint=hint)
    writes = multi_process.is_primary()
    config = settings(resumed_config(run, config) if resume and writes else config)
    if resume and writes:
        check_kept(config, run.checkpoints)
    elif writes:
        check_read(config.data)
        check_effective(config)
    if writes:
        Schedule.from_config(config).check_lines("outer.log_every")
    check_available(config.precision)
    check_chunk(config)
    return config


def _planned(experiment: Experiment) -> tuple[Experiment, MemoryPlan | None]:
    """The experiment as it fits into the memory of every process, and the plan; policies have none."""
    if not isinstance(experiment, SupervisedExperiment):
        return experiment, None
    experiment.check_classes()
    plan = memory_plan(experiment, min(multi_process.all_gather_int(available_memory())))
    return apply_plan(experiment, plan), plan


@contextmanager
def _recording(
    run: RunFolder, config: Config, experiment: Experiment, data: dict[str, str], resume: bool, guard: Guard
) -> Iterator[tuple[RunRecorder, list[str]]]:
    """The recorder of a run, and what to tell the user of a new one.

    Other runs are kept out of the folder, and a new run that ends before there is anything to resume is undone.
    """
    new, start = run.undone_unless_resumable(new=not resume), warm_start.WarmStart(config.model.start)
    with new as undo, guard.undoing(undo), exclusive_lock(run):
        if resume:
            run.check_data(data)
        messages = [] if resume else _begin(run, config, experiment, data, start)
        with checkpoint_manager.opened(run.make(RunFile.CHECKPOINTS), run.identity(data)) as checkpoints:
            save = lambda path, params, facts: weights.save(path, params, experiment.config, facts)
            yield RunRecorder(run, save, checkpoints, start), messages


def _begin(
    run: RunFolder, config: Config, experiment: Experiment, data: dict[str, str], start: warm_start.WarmStart
) -> list[str]:
    """Describe a new run in its folder; returns what to tell the user."""
    start.params(jax.eval_shape(experiment.init_params))  # raises before anything is written
    run.create(config, data | start.hashes)
    if isinstance(experiment, TableExperiment):
        run.write(RunFile.TABLE, experiment.table.preparation.to_json())
    pictures = experiment.splits if isinstance(experiment, SupervisedExperiment) else None
    if not (config.data.spec.needs_folder and pictures):
        return []
    return [f"Pictures: {contact_sheet.write(run, pictures)} shows what was loaded."]


def _reopen(run: RunFolder, config: Config, step: int) -> None:
    """Record another length of a run, and remove the weights of an earlier end if it goes on."""
    if config.outer.meta_steps != run.config().outer.meta_steps:
        run.change_length(config.outer.meta_steps)
    elif step < config.outer.meta_steps and weights.ended_early(run.weights, config):
        run.remove(run.weights.name)


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
