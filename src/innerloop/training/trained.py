"""Loads trained initialisations, with the experiments that they belong to."""

from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, get_args

import jax

from innerloop.config.data_settings import check_exists, check_places
from innerloop.config.schema import Config
from innerloop.engine.algorithm import Algorithm
from innerloop.engine.meta_state import MetaState
from innerloop.engine.types import Params
from innerloop.errors import InnerloopError, check_choice
from innerloop.io.untrusted import JsonObject
from innerloop.parallel.mesh import on_host
from innerloop.training.experiments.build import build
from innerloop.training.experiments.experiment import Experiment, Split
from innerloop.training.memory import model_size
from innerloop.training.storage import weights
from innerloop.training.storage.run_directory import RunFolder
from innerloop.training.storage.sources import load_weights
from innerloop.training.warm_start import WarmStart


@dataclass(frozen=True)
class Trained:
    """A trained initialisation, from `train` or `load_trained`.

    Attributes:
        params: the meta-parameters, ready to adapt to held-out tasks.
        experiment: the parts of the run, built from its config.
        source: where it is from: the run's folder, a weights file or a preset.
        facts: what is stored with the weights, such as the number of `meta_steps`.
        folder: the run's folder; None for weights from elsewhere.
        state: the final state of the outer loop, from `train`; None if it was loaded.
    """

    params: Params
    experiment: Experiment
    source: str
    facts: JsonObject
    folder: Path | None = None
    state: MetaState | None = None

    def __repr__(self) -> str:
        return (
            f"<Trained: {self.config.title}, meta_steps={self.facts.get('meta_steps')}, source={self.source}>"
        )

    @property
    def config(self) -> Config:
        """The config of its training."""
        return self.experiment.config

    @property
    def algorithm(self) -> Algorithm:
        """The algorithm as it is measured, with the inner loop at test."""
        return self.experiment.test_algorithm

    @property
    def metrics(self) -> list[JsonObject]:
        """The lines of the run's `metrics.jsonl`; none for weights from elsewhere."""
        return RunFolder(self.folder).metrics() if self.folder else []

    def tasks(self, split: Split = "test") -> Any:
        """The distribution of the tasks of a split as they are measured; of a policy, its environment."""
        check_choice("tasks", "split", split, get_args(Split))
        return self.experiment.held_out_tasks(split)


def load_trained(source: str | Path, *, data_folder: str = "") -> Trained:
    """Load a run's folder, a `.safetensors` file, or a preset whose weights ship with the package.

    A warning tells if the data are not those of the training.

    Args:
        source: the folder, the file or the name of the preset.
        data_folder: replaces the image folder or table of the config (empty: as in the config).

    Raises:
        InnerloopError: if there is no such source, or its data set is not read from a folder or file.
    """
    path, arrays, config, facts = load_weights(source)
    model_size.check_stored(config, arrays, str(path))
    config, spec = with_data(config, data_folder), config.data.spec
    check_places(config.data, "give its new place as `data_folder`")
    folder = Path(source) if Path(source).is_dir() else None
    experiment, run = build(config, folder), None if folder is None else RunFolder(folder)
    if run is not None and (spec.needs_file or spec.needs_folder) and run.known().get("data"):
        run.warn_of_other_data(experiment.data_hashes())
    like = model_size.shapes_of(experiment.init_params, str(path))
    # A model too large for one device is sharded where it is used.
    with on_host() if config.outer.model_shards > 1 else nullcontext():
        params = experiment.for_tasks(weights.into(like, arrays, str(path)))
        return Trained(params, experiment, str(source), facts, folder)


def with_data(config: Config, place: str) -> Config:
    """The config with another image folder or table (empty: unchanged).

    Raises:
        InnerloopError: if there is no such folder or file, or the run's data set is not read from one.
    """
    spec = config.data.spec
    if not place:
        return config
    if not (spec.needs_file or spec.needs_folder):
        wrong = f"the run's data set `{spec.name}` is not read from a folder or file"
        raise InnerloopError("data_folder", wrong, got=repr(place), hint="leave it out")
    kind = "file" if spec.needs_file else "folder"
    check_exists("data_folder", place, kind)
    return replace(config, data=replace(config.data, **{kind: place}))


def untrained_of(trained: Trained) -> Trained:
    """The same network with random weights."""
    return _before_training(trained.experiment, "untrained")


def started_from(trained: Trained) -> Trained:
    """The model that training started from (`model.start`).

    It is the first snapshot in a run's folder; without one, it is read from its original place.

    Raises:
        InnerloopError: if it is no longer there, or has changed.
    """
    start, fresh = WarmStart(trained.config.model.start), jax.eval_shape(trained.experiment.init_params)
    run = RunFolder(trained.folder) if trained.folder else None
    if run is not None and (first := run.snapshot(0)).is_file():
        params = weights.into(fresh, weights.load(first)[0], str(first))
    else:
        start.check_unchanged(run.known() if run else {})
        params = start.params(fresh)
    return _before_training(trained.experiment, start.source, params)


def _before_training(experiment: Experiment, source: str, params: Params = None) -> Trained:
    """The model before the first meta-step, with `params` or else random weights."""
    params = experiment.init_params() if params is None else params
    return Trained(experiment.for_tasks(params), experiment, source, {"meta_steps": 0})
