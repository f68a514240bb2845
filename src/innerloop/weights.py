"""Trained initialisations as safetensors files with their config inside; some ship with the package."""

import json
from importlib import resources
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from safetensors import SafetensorError, safe_open

from innerloop import tensors
from innerloop.checkpoint import check_same
from innerloop.config import Config
from innerloop.config_json import from_json, to_json
from innerloop.errors import InnerloopError
from innerloop.outside import parse_json
from innerloop.task import Params
from innerloop.tree import paths

SHIPPED = resources.files("innerloop") / "shipped"


def save(path: Path, params: Params, config: Config, facts: dict[str, Any]) -> None:
    """Write parameters by path, with the config and `facts` (training length, seed, ...) as metadata."""
    arrays = {p: np.asarray(x) for p, x in zip(paths(params), jax.tree.leaves(params), strict=True)}
    save_arrays(path, arrays, config, facts)


def save_arrays(path: Path, arrays: dict[str, np.ndarray], config: Config, facts: dict[str, Any]) -> None:
    """`save`, for arrays by path."""
    metadata = {"config": to_json(config), "facts": json.dumps(facts)}
    tensors.write(path, arrays, metadata, do="free some room")


def load(path: Path) -> tuple[dict[str, np.ndarray], Config, dict[str, Any]]:
    """Read arrays by path, config and facts. Raises InnerloopError for anything that is not such a file."""
    try:
        with safe_open(path, framework="numpy") as file:
            metadata = file.metadata() or {}
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
        config, facts = from_json(metadata["config"], str(path)), metadata["facts"]
    except (SafetensorError, OSError, KeyError) as error:
        raise InnerloopError(
            str(path), f"holds no trained weights ({type(error).__name__}: {error})"
        ) from None
    return arrays, config, facts_of(facts, path)


def facts_of(text: str, path: Path) -> dict[str, Any]:
    """The facts beside the weights. Raises InnerloopError unless they are a JSON object."""
    facts = parse_json(text, f"{path} holds no trained weights: its facts")
    if not isinstance(facts, dict):
        raise InnerloopError(str(path), "holds no trained weights: its facts are no object")
    return facts


def into(params: Params, arrays: dict[str, np.ndarray], who: str) -> Params:
    """`params` with the values of `arrays`. Raises InnerloopError if they are of another model."""
    leaves = dict(zip(paths(params), jax.tree.leaves(params), strict=True))
    check_same(leaves, arrays, who)
    for name, array in arrays.items():
        if not jnp.issubdtype(array.dtype, jnp.floating):
            raise InnerloopError(who, f"`{name}` must hold floats", got=array.dtype)
    return jax.tree.structure(params).unflatten([jnp.asarray(arrays[path]) for path in leaves])


def shipped() -> list[str]:
    """Names of the presets whose trained weights come with the package."""
    if not SHIPPED.is_dir():
        return []
    return sorted(
        f.name.removesuffix(".safetensors") for f in SHIPPED.iterdir() if f.name.endswith(".safetensors")
    )


def shipped_path(name: str) -> Path:
    """Where the shipped weights of a preset are."""
    return Path(str(SHIPPED / f"{name}.safetensors"))
