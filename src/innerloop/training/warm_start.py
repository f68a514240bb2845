"""Where meta-training begins: random weights, or the body of a trained model under a new head.

A body that was trained to tell all training classes apart is a far better place to begin than random weights, and
meta-training from it takes a fraction of the steps (Ye and Chao 2022, "How to Train Your MAML to Excel in Few-Shot
Classification", begin so throughout).
"""

import os
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import jax
import numpy as np
from jaxtyping import PyTree

from innerloop.config.schema import Config
from innerloop.engine.pytree import chosen, paths
from innerloop.errors import InnerloopError
from innerloop.io import safetensors_reader
from innerloop.io.untrusted import JsonObject, sha256_of
from innerloop.training.storage import weights
from innerloop.training.storage.sources import weights_path

MODEL = "model/"
"""Before the paths of a model's parameters, where an algorithm learns something beside them."""


@dataclass(frozen=True)
class WarmStart:
    """The model that training begins from: the name of a shipped one, a run's folder or a weights file.

    An empty source stands for random weights. File, hash and arrays are read when they are first asked for, and then
    kept: a run that has a checkpoint no longer needs the model.
    """

    source: str

    @cached_property
    def path(self) -> Path:
        """The weights file; a shipped model goes before a folder that happens to have its name."""
        shipped = self.source in weights.shipped()
        return weights.shipped_path(self.source) if shipped else weights_path(self.source)

    @cached_property
    def arrays(self) -> dict[str, np.ndarray]:
        """The file's arrays by path."""
        return weights.load(self.path)[0]

    @cached_property
    def hashes(self) -> dict[str, str]:
        """SHA-256 of the file by the name `start`, for the run's provenance; nothing for random weights."""
        return {"start": sha256_of(self.path, safetensors_reader.largest())} if self.source else {}

    def params(self, fresh: PyTree) -> PyTree:
        """`fresh` with the model's values, and zeros for a head of another shape; without a model, `fresh` itself.

        Shapes and types of `fresh` count alone. Raises InnerloopError if there is no such model, or its body is another
        one.
        """
        if not self.source:
            return fresh
        arrays, head = self.fitting(fresh), blank_head(fresh)
        if any(path not in arrays or arrays[path].shape != x.shape for path, x in head.items()):
            arrays = arrays | head
        try:
            found = weights.into(fresh, arrays, self.source)
        except InnerloopError as error:
            do = "start from a model of the same `model` settings and size of images, or anew (`model.start` empty)"
            raise InnerloopError("model.start", f"does not fit: {error}", do=do) from None
        return jax.tree.map(lambda x, like: x.astype(like.dtype), found, fresh)

    def fitting(self, fresh: PyTree) -> dict[str, np.ndarray]:
        """The file's arrays by the paths of `fresh`; what is learnt beside a model is taken if all of it fits."""
        own = dict(zip(paths(fresh), jax.tree.leaves(fresh), strict=True))
        beside = {path: x for path, x in own.items() if not path.startswith(MODEL)}
        inside = {n.removeprefix(MODEL): x for n, x in self.arrays.items() if n.startswith(MODEL)}
        model = inside or self.arrays
        if len(beside) == len(own):  # a model alone
            return model
        fits = all(n in self.arrays and self.arrays[n].shape == x.shape for n, x in beside.items())
        kept = {path: self.arrays[path] if fits else _values(x) for path, x in beside.items()}
        return {MODEL + path: x for path, x in model.items()} | kept

    def check_unchanged(self, known: JsonObject) -> None:
        """Raise InnerloopError if the file that a run began from, as its folder knows it, is another one by now."""
        data = known.get("data")
        then = data.get("start") if isinstance(data, dict) else None
        if then is not None and self.hashes.get("start") != then:
            wrong, do = "has changed since the run began", "bring it back, or start a new run"
            raise InnerloopError("model.start", wrong, got=self.source, do=do)


def blank_head(model: PyTree) -> dict[str, np.ndarray]:
    """Zeros in the shapes of a model's head, by path."""
    own = zip(paths(model), jax.tree.leaves(model), strict=True)
    return {path: np.zeros(x.shape, x.dtype) for path, x in own if chosen("head", path.removeprefix(MODEL))}


def _values(x: jax.Array | jax.ShapeDtypeStruct) -> np.ndarray:
    """An array's values; zeros where only its shape is known."""
    return np.asarray(x) if isinstance(x, jax.Array) else np.zeros(x.shape, x.dtype)


def absolute(config: Config) -> Config:
    """The config with paths that hold wherever the run is resumed, measured or made again from."""
    source, data = config.model.start, config.data
    source = source if source in weights.shipped() else resolved(source)
    return replace(
        config,
        model=replace(config.model, start=source),
        data=replace(data, folder=resolved(data.folder), file=resolved(data.file)),
    )


def resolved(path: str) -> str:
    """From the root on; as it is where it names nothing, which is told where it is read."""
    place = os.path.expanduser(path)
    return os.path.realpath(place) if os.path.exists(place) else path
