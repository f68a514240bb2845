"""Builds the experiment that a config describes."""

import re
from pathlib import Path

from innerloop.config.data_settings import check_places
from innerloop.config.schema import Config, InnerConfig
from innerloop.config.specs import SETTINGS
from innerloop.engine.outer.chunking import split_evenly
from innerloop.errors import InnerloopError
from innerloop.parallel.mesh import task_mesh
from innerloop.tasks.class_arrays import Splits
from innerloop.training.experiments.experiment import Experiment
from innerloop.training.experiments.supervised import SupervisedExperiment
from innerloop.training.experiments.table import TableExperiment, load_table


def load_splits(config: Config) -> Splits | None:
    """Read the configured data set (None if there is nothing to read)."""
    data = config.data
    if data.spec.kind != "images":
        return None
    check_places(data)
    try:
        return data.spec.load(data)
    except InnerloopError as error:
        raise _in_settings(error) from None


LOADERS = ("image_folder.load", "mini_imagenet.load")
"""On whose behalf the readers of a folder of images raise errors."""

ARGUMENTS = ("folder", "size", "background", "min_examples")
"""Their arguments; the settings of `data` with the same names give them."""


def _in_settings(error: InnerloopError) -> InnerloopError:
    """The error of a reader of images, with settings in place of its name and its arguments."""
    who = "folder" if error.who in LOADERS else error.who
    who = f"data.{who}" if who in ARGUMENTS else who
    text = str(error).removeprefix(f"{error.who}: ")
    return InnerloopError(who, re.sub(f"`({'|'.join(ARGUMENTS)})`", r"`data.\1`", text))


def check_algorithm(config: Config) -> None:
    """Raise InnerloopError if the algorithm cannot learn from such tasks, or if a setting is given that it ignores."""
    spec, c = config.spec, config.inner
    kind = config.data.spec.kind
    if (spec.classes and kind != "images") or (config.reinforcement and not spec.policies):
        wrong, hint = "cannot learn from such tasks", "choose another `algorithm`, or other `data`"
        raise InnerloopError(spec.title, wrong, got=config.data.dataset, hint=hint)
    if spec.adapts == "context" and not config.model.context:
        hint = "set `model.kind` mlp and `model.context` to 4, for example"
        raise InnerloopError("model.context", f"{spec.title} adapts context parameters", got=0, hint=hint)
    for name in sorted(SETTINGS.difference(spec.settings)):
        if getattr(c, name) != getattr(InnerConfig(), name):
            raise InnerloopError(
                f"inner.{name}", f"{spec.title} does not use it", got=getattr(c, name), hint="leave it out"
            )
    if c.optimizer == "persistent_adam" and (config.reinforcement or not spec.persistent_moments):
        wrong, hint = "`persistent_adam` is for Reptile on examples", "choose sgd or adam"
        got = f"{config.algorithm} on {config.data.dataset}"
        raise InnerloopError("inner.optimizer", wrong, got=got, hint=hint)


def build(config: Config, run: str | Path | None = None) -> Experiment:
    """Load the data and check that the parts fit together; `run` is the folder of the run, if it has begun."""
    check_settings(config)
    if config.reinforcement:
        # Takes half a second to import, so only if needed.
        from innerloop.training.experiments.reinforcement import RLExperiment

        return RLExperiment(config)
    if config.data.spec.needs_file:
        return TableExperiment(config, table=load_table(config, run))
    return SupervisedExperiment(config, load_splits(config))


def check_settings(config: Config) -> None:
    """Raise InnerloopError for settings that do not go together, before anything is read or JAX is used."""
    check_algorithm(config)
    if config.reinforcement:
        from innerloop.training.experiments.reinforcement import check_policy

        check_policy(config)


def check_chunk(config: Config) -> None:
    """Raise InnerloopError if a meta-batch cannot be split into the chunks of the config, on these devices."""
    outer = config.outer
    mesh = task_mesh(outer.meta_batch, model_shards=outer.model_shards)
    try:
        split_evenly(outer.meta_batch, mesh, outer.chunk, "train")
    except InnerloopError as error:
        text = error.problem.replace("`meta_batch`", "`outer.meta_batch`")
        text = text.replace("x chunk", "x `outer.chunk`").rstrip(".")
        raise InnerloopError("train", text, hint="change one of them") from None
