"""Trained initialisations as safetensors files that include their config; some ship with the package."""

import json
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree

from innerloop.config.schema import Config
from innerloop.config.serialization import from_json, to_json
from innerloop.engine.pytree import by_path
from innerloop.engine.types import Params
from innerloop.errors import InnerloopError
from innerloop.io import safetensors_reader, safetensors_writer
from innerloop.io.untrusted import JsonObject, is_number, parse_json
from innerloop.training.storage import shipped
from innerloop.training.storage.run_directory import FIT, LOAD, snapshots_in
from innerloop.training.storage.shapes import HINT, check_same_shapes


def save(path: Path, params: PyTree, config: Config, facts: JsonObject) -> None:
    """Write parameters by path, with the config and `facts` (training length, seed, ...) as metadata."""
    arrays = {name: np.asarray(x) for name, x in by_path(params).items()}
    metadata = {"config": to_json(config), "facts": json.dumps(facts)}
    safetensors_writer.write(path, arrays, metadata, hint="free some room")


def load(path: Path) -> tuple[dict[str, np.ndarray], Config, JsonObject]:
    """Read arrays by path, config and facts. Raises InnerloopError for any other file."""
    arrays, metadata = safetensors_reader.read(path, "trained weights")
    if "fit" in metadata:
        wrong = f"holds weights of {FIT}, for a model of your own"
        raise InnerloopError(str(path), wrong, hint=f"load them with {LOAD}")
    missing = [name for name in ("config", "facts") if name not in metadata]
    if missing:
        raise InnerloopError(str(path), f"holds no trained weights (it has no {missing[0]})")
    return arrays, from_json(metadata["config"], str(path)), facts_of(metadata["facts"], path)


def ended_early(path: Path, config: Config) -> bool:
    """Whether these are the weights of a run of this config that a callback ended before its last meta-step."""
    with suppress(InnerloopError, OSError):
        return load(path)[2].get("meta_steps", config.outer.meta_steps) < config.outer.meta_steps
    return False


def deciding(config: Config) -> Config:
    """The config without settings that do not affect the result: memory, snapshots, and paths of data and a start."""
    return replace(
        config,
        outer=replace(config.outer, chunk=None, snapshots=0),
        inner=replace(config.inner, derivative="mixed", checkpoints=None, offload=False),
        data=replace(config.data, folder="", file=""),
        model=replace(config.model, start=""),
    )


def check_config(path: Path, wanted: Config, found: Config) -> None:
    """Raise InnerloopError if the weights were trained with other settings."""
    if deciding(found) != deciding(wanted):
        hint = "give another folder, or restore the run's own weights"
        raise InnerloopError(str(path), "holds weights that were trained with other settings", hint=hint)


FACTS: dict[str, Callable[[Any], bool]] = {
    "meta_steps": lambda n: type(n) is int and 0 <= n < 2**63,
    "seconds": lambda n: is_number(n) and 0 <= n < 1e12,
    "environment": lambda value: isinstance(value, dict),
}
"""The check of each known fact."""


def facts_of(text: str, path: Path) -> JsonObject:
    """The facts stored with the weights. Raises InnerloopError unless they are a JSON object with valid known facts."""
    facts = parse_json(text, f"{path} holds no trained weights: its facts")
    if not isinstance(facts, dict):
        raise InnerloopError(str(path), "holds no trained weights: its facts are not a JSON object")
    for name, right in FACTS.items():
        if name in facts and not right(facts[name]):
            got = repr(facts[name])[:80]
            raise InnerloopError(str(path), f"holds no trained weights: fact `{name}` is invalid", got=got)
    return facts


def into(params: object, arrays: dict[str, np.ndarray], who: str, hint: str = HINT) -> Params:
    """A tree like `params` with the values of `arrays`; only the shapes and types of `params` are used.

    Raises InnerloopError, with `hint`, if the arrays belong to another model or hold a number that is not finite.
    """
    leaves = by_path(params)
    check_same_shapes(leaves, arrays, who, hint)
    for name, array in arrays.items():
        if jnp.issubdtype(leaves[name].dtype, jnp.floating):
            if not jnp.issubdtype(array.dtype, jnp.floating):
                raise InnerloopError(who, f"`{name}` must hold floats", got=array.dtype)
        elif array.dtype != leaves[name].dtype:  # part of a model's state, such as a counter
            raise InnerloopError(who, f"`{name}` must hold {leaves[name].dtype}", got=array.dtype)
    found = {path: jnp.asarray(arrays[path], leaf.dtype) for path, leaf in leaves.items()}
    for name, array in found.items():
        if not np.isfinite(np.asarray(array)).all():
            raise InnerloopError(who, f"`{name}` holds a number that is not finite")
    return jax.tree.structure(params).unflatten(found.values())


def shipped_snapshots(name: str) -> dict[int, Path]:
    """The shipped snapshots from the training of a preset, by meta-step; most presets have none."""
    return snapshots_in(Path(str(shipped.FOLDER / "snapshots" / name))) if name in shipped.names() else {}
