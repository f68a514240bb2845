"""Where meta-training begins: random weights, or the body of a trained model under a new head.

A body that was trained to tell all training classes apart is a far better place to begin than random weights, and
meta-training from it takes a fraction of the steps (Ye and Chao 2022, "How to Train Your MAML to Excel in Few-Shot
Classification", begin so throughout).
"""

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import numpy as np

from innerloop.config.schema import Config
from innerloop.engine.pytree import chosen, paths
from innerloop.engine.types import Params
from innerloop.errors import InnerloopError
from innerloop.io import safetensors_reader
from innerloop.io.untrusted import sha256_of
from innerloop.training.storage import weights
from innerloop.training.storage.sources import weights_path
from innerloop.training.supervised import Experiment


def first_params(experiment: Experiment) -> Params:
    """The weights before the first meta-step. Raises InnerloopError if the model to start from does not fit."""
    fresh, source = experiment.init_params(), experiment.config.model.start
    return with_body(fresh, source) if source else fresh


def check(experiment: Experiment) -> None:
    """Raise InnerloopError unless the model to start from, if there is one, is there and fits."""
    if experiment.config.model.start:
        first_params(experiment)


def with_body(fresh: Params, source: str) -> Params:
    """`fresh` with the values of a trained model, and zeros for a head of another shape.

    `source` is the name of a shipped model, a run's folder or a weights file. Raises InnerloopError if there is no
    such model, or if its body is another one.
    """
    arrays, head = weights.load(file_of(source))[0], blank_head(fresh)
    if any(path not in arrays or arrays[path].shape != x.shape for path, x in head.items()):
        arrays = arrays | head
    try:
        found = weights.into(fresh, arrays, source)
    except InnerloopError as error:
        do = (
            "start from a model of the same --model.* settings and size of images, or anew (--model.start '')"
        )
        raise InnerloopError("--model.start", f"does not fit: {error}", do=do) from None
    return jax.tree.map(lambda x, like: x.astype(like.dtype), found, fresh)


def blank_head(model: Any) -> dict[str, np.ndarray]:
    """Zeros in the shapes of a model's head, by path."""
    own = zip(paths(model), jax.tree.leaves(model), strict=True)
    return {path: np.zeros(x.shape, x.dtype) for path, x in own if chosen("head", path)}


def file_of(source: str) -> Path:
    """The weights file; a shipped model goes before a folder that happens to have its name."""
    return weights.shipped_path(source) if source in weights.shipped() else weights_path(source)


def hash_of_start(config: Config) -> dict[str, str]:
    """SHA-256 of the file that training begins from, by the name `start`; nothing for random weights."""
    if not config.model.start:
        return {}
    return {"start": sha256_of(file_of(config.model.start), safetensors_reader.largest())}


def check_unchanged(config: Config, known: dict[str, Any]) -> None:
    """Raise InnerloopError if the file that a run began from, as its folder knows it, is another one by now."""
    data = known.get("data")
    then = data.get("start") if isinstance(data, dict) else None
    if then is not None and hash_of_start(config).get("start") != then:
        do = "bring it back, or start a new run"
        raise InnerloopError(
            "--model.start", "has changed since the run began", got=config.model.start, do=do
        )


def absolute(config: Config) -> Config:
    """The config with paths that hold wherever the run is resumed, measured or made again from."""
    source, folder = config.model.start, config.data.folder
    source = source if source in weights.shipped() else resolved(source)
    return replace(
        config,
        model=replace(config.model, start=source),
        data=replace(config.data, folder=resolved(folder)),
    )


def resolved(path: str) -> str:
    """From the root on; as it is where it names nothing, which is told where it is read."""
    place = os.path.expanduser(path)
    return os.path.realpath(place) if os.path.exists(place) else path
