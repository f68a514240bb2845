"""Where meta-training starts: random weights, or the body of a trained model with a new head.

A body that was trained to classify all training classes is a far better starting point than random weights:
meta-training from it takes a fraction of the steps (Ye and Chao 2022, "How to Train Your MAML to Excel in Few-Shot
Classification", always start like this).
"""

import os
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import jax
import numpy as np
from jaxtyping import PyTree

from innerloop.config.schema import Config
from innerloop.engine.pytree import by_path, is_selected
from innerloop.errors import InnerloopError
from innerloop.io import safetensors_reader
from innerloop.io.untrusted import JsonObject, sha256_of
from innerloop.training.storage import shipped, weights
from innerloop.training.storage.sources import weights_path

MODEL = "model/"
"""Prefix of the paths of a model's parameters, if the algorithm learns other parameters as well."""


@dataclass(frozen=True)
class WarmStart:
    """The model that training starts from: a shipped model's name, a run's folder or a weights file.

    An empty source means random weights. File, hash and arrays are read when they are first needed: a run that has a
    checkpoint no longer needs the model.
    """

    source: str

    @cached_property
    def path(self) -> Path:
        """The weights file; a shipped model takes precedence over a folder of the same name."""
        if self.source in shipped.names():
            return shipped.path(self.source)
        return weights_path(self.source, "model.start")

    @cached_property
    def arrays(self) -> dict[str, np.ndarray]:
        """The file's arrays, by path."""
        return weights.load(self.path)[0]

    @cached_property
    def hashes(self) -> dict[str, str]:
        """SHA-256 of the file under the name `start`, for the run's provenance; empty for random weights."""
        return {"start": sha256_of(self.path, safetensors_reader.largest())} if self.source else {}

    def params(self, fresh: PyTree) -> PyTree:
        """`fresh` with the model's values, and zeros for a head of another shape; without a model, `fresh` itself.

        Otherwise only the shapes and types of `fresh` are used. Raises InnerloopError if there is no such model, or its
        body does not fit.
        """
        if not self.source:
            return fresh
        arrays, head = self.matching_arrays(fresh), zero_head(fresh)
        if any(path not in arrays or arrays[path].shape != x.shape for path, x in head.items()):
            arrays = arrays | head
        try:
            found = weights.into(fresh, arrays, self.source, hint="")
        except InnerloopError as error:
            hint = "use a model with the same `model` settings and image size, or random weights (`model.start` empty)"
            raise InnerloopError(
                "model.start", f"does not fit: {str(error).rstrip('.')}", hint=hint
            ) from None
        return jax.tree.map(lambda x, like: x.astype(like.dtype), found, fresh)

    def matching_arrays(self, fresh: PyTree) -> dict[str, np.ndarray]:
        """The file's arrays, by the paths of `fresh`; parameters beside the model are taken only if all of them fit."""
        own = by_path(fresh)
        beside = {path: x for path, x in own.items() if not path.startswith(MODEL)}
        inside = {n.removeprefix(MODEL): x for n, x in self.arrays.items() if n.startswith(MODEL)}
        model = inside or self.arrays
        if len(beside) == len(own):  # only a model
            return model
        fits = all(n in self.arrays and self.arrays[n].shape == x.shape for n, x in beside.items())
        kept = {path: self.arrays[path] if fits else _values(x) for path, x in beside.items()}
        return {MODEL + path: x for path, x in model.items()} | kept

    def check_unchanged(self, known: JsonObject) -> None:
        """Raise InnerloopError if the file no longer matches the hash that the run's folder recorded."""
        data = known.get("data")
        then = data.get("start") if isinstance(data, dict) else None
        if then is not None and self.hashes.get("start") != then:
            wrong, hint = "has changed since the run began", "restore it, or start a new run"
            raise InnerloopError("model.start", wrong, got=self.source, hint=hint)


def zero_head(model: PyTree) -> dict[str, np.ndarray]:
    """Zeros with the shapes of a model's head, by path."""
    is_head = lambda path: is_selected("head", path.removeprefix(MODEL))
    return {path: np.zeros(x.shape, x.dtype) for path, x in by_path(model).items() if is_head(path)}


def _values(x: jax.Array | jax.ShapeDtypeStruct) -> np.ndarray:
    """An array's values; zeros if only its shape is known."""
    return np.asarray(x) if isinstance(x, jax.Array) else np.zeros(x.shape, x.dtype)


def absolute(config: Config) -> Config:
    """The config with absolute paths, so that the run can be resumed, measured or reproduced from any folder."""
    source, data = config.model.start, config.data
    source = source if source in shipped.names() else resolved(source)
    return replace(
        config,
        model=replace(config.model, start=source),
        data=replace(data, folder=resolved(data.folder), file=resolved(data.file)),
    )


def resolved(path: str) -> str:
    """The absolute path; unchanged if there is no such file, which is reported when it is read."""
    place = os.path.expanduser(path)
    return os.path.realpath(place) if os.path.exists(place) else path
