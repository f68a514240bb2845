"""A trained initialisation with the experiment that it belongs to."""

from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from innerloop.config.presets.registry import preset
from innerloop.config.schema import Config
from innerloop.engine.types import Params
from innerloop.parallel.mesh import on_the_host
from innerloop.training import model_size
from innerloop.training.build import build
from innerloop.training.experiment import Experiment
from innerloop.training.storage import weights
from innerloop.training.storage.sources import weights_path


@dataclass(frozen=True)
class Trained:
    """An initialisation, where it came from, and the experiment that made it."""

    params: Params
    experiment: Experiment
    source: str
    facts: dict[str, Any]

    @property
    def config(self) -> Config:
        """The config that it was trained with."""
        return self.experiment.config


def load_trained(source: str | Path, *, data_folder: str = "") -> Trained:
    """A run's folder, a `.safetensors` file, or the name of a preset whose weights ship with the package.

    `data_folder` replaces the image folder of the config. Raises InnerloopError if there is nothing of that name.
    """
    path = weights_path(source)
    arrays, config, facts = weights.load(path)
    model_size.check_stored(config, arrays, str(path))
    if data_folder:
        config = replace(config, data=replace(config.data, folder=data_folder))
    experiment = build(config)
    like = model_size.shapes_of(experiment.init_params, str(path))
    # What is too large for one device is cut where it is used.
    with on_the_host() if config.outer.model_shards > 1 else nullcontext():
        params = weights.into(like, arrays, str(path))
        return Trained(experiment.for_tasks(params), experiment, str(source), facts)


def untrained(name: str, *, seed: int = 0) -> Trained:
    """A preset's model before any training: the baseline that is fine-tuned from random weights."""
    experiment = build(replace(preset(name), seed=seed))
    return Trained(
        experiment.for_tasks(experiment.init_params()), experiment, "random weights", {"meta_steps": 0}
    )
