"""Weights that somebody else has made: their headers, facts, numbers and configs."""

import json
import os
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import save_file
from tests.attacks.hostile_files import small

from innerloop import cli
from innerloop.config.schema import Config
from innerloop.config.serialization import to_json
from innerloop.errors import InnerloopError
from innerloop.learner.pretrained import load_initialisation
from innerloop.training.storage import weights
from innerloop.training.trained import load_trained


@pytest.fixture(scope="module")
def arrays() -> dict[str, np.ndarray]:
    sides = {"body/0/weight": (1, 3), "body/0/bias": (3,), "head/weight": (3, 1), "head/bias": (1,)}
    return {name: np.ones(shape, np.float32) for name, shape in sides.items()}


def stored(
    path: Path, arrays: dict[str, np.ndarray], config: Config, facts: str = '{"meta_steps": 3}'
) -> Path:
    save_file(arrays, path, metadata={"config": to_json(config), "facts": facts})
    return path


def readdressed(path: Path, change: Callable[[dict[str, Any]], Any], size: int | None = None) -> Path:
    """The file with another header; `size` bytes of tensors, which are not written."""
    content = path.read_bytes()
    (length,) = struct.unpack("<Q", content[:8])
    header = json.loads(content[8 : 8 + length])
    change(header)
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + content[8 + length :])
    if size is not None:
        os.truncate(path, 8 + len(text) + size)
    return path


def one(dtype: str, shape: list[Any], size: Any) -> Callable[[dict[str, Any]], Any]:
    about = {"x": {"dtype": dtype, "shape": shape, "data_offsets": [0, size]}}
    return lambda header: [header.pop(name) for name in list(header) if "/" in name] + [header.update(about)]


@pytest.mark.parametrize(
    ("change", "size"),
    [
        (one("F8_E4M3", [40], 40), 40),
        (one("F32", [25 << 30], 100 << 30), 100 << 30),  # a hundred gigabytes that take no room
        (one("F32", [25 << 30], 100 << 30), None),
        (one("F32", [10**30, 0], 0), 0),
        (one("F32", [2.0], 8), 8),
        (one("F32", [True, 2], 8), 8),
        (one("F32", [1] * 100, 4), 4),
        (one("F32", [1], 8), 8),
        (lambda header: header.update({f"x{n}": None for n in range(20_000)}), None),
        (lambda header: header["head/bias"].update(data_offsets=[0, 4]), None),
    ],
)
def test_invalid_weights_headers_are_rejected(tmp_path: Path, arrays, bounded, change, size):
    path = readdressed(stored(tmp_path / "w.safetensors", arrays, small()), change, size)
    for read in (weights.load, load_trained, load_initialisation):
        with pytest.raises(InnerloopError, match="holds no trained weights"):
            read(path)


@pytest.mark.parametrize("meta_steps", ['"3"', "[3]", "-1", "1.5", "1" + "0" * 30, "true", "NaN", "null"])
def test_facts_with_invalid_meta_steps_are_rejected(tmp_path: Path, arrays, meta_steps: str):
    path = stored(tmp_path / "w.safetensors", arrays, small(), f'{{"meta_steps": {meta_steps}}}')
    with pytest.raises(InnerloopError, match="its facts: is not JSON|fact `meta_steps` is invalid"):
        weights.load(path)


@pytest.mark.parametrize("number", [np.nan, np.inf])
@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.float16, ml_dtypes.bfloat16])
def test_non_finite_weights_are_rejected(tmp_path: Path, arrays, number: float, dtype: Any):
    values = {name: x.astype(dtype) for name, x in arrays.items()}
    sound = stored(tmp_path / "w.safetensors", values, small())
    assert {x.dtype for x in jax.tree.leaves(load_trained(sound).params)} == {np.dtype(np.float32)}
    values["head/bias"] = np.array([number], dtype)
    path = stored(tmp_path / "w.safetensors", values, small())
    for read in (load_trained, load_initialisation):
        with pytest.raises(InnerloopError, match="`head/bias` holds a number that is not finite"):
            read(path)


def test_analyze_rejects_non_finite_weights(tmp_path: Path, arrays, capsys):
    path = stored(tmp_path / "w.safetensors", arrays | {"head/bias": np.array([np.nan], np.float32)}, small())
    assert cli.main(["analyze", str(path), "--tasks", "2"]) == 2
    assert "not finite" in capsys.readouterr().err


HUGE = [
    {"hidden": (30_000, 30_000)},
    {"hidden": (10**9,)},
    {"hidden": (10**18,)},
    {"hidden": (1,) * 20_000},
    {"kind": "conv4", "filters": 10**9},
    {"kind": "conv4", "filters": 10**18},
]


@pytest.mark.parametrize("model", HUGE, ids=range(len(HUGE)))
def test_config_larger_than_weights_is_rejected(tmp_path: Path, arrays, bounded, model):
    path = stored(tmp_path / "w.safetensors", arrays, small())
    text = to_json(small()).replace(
        '"hidden": [\n      3\n    ]', f'"hidden": {list(model.get("hidden", (3,)))}'
    )
    text = text.replace('"kind": "mlp"', f'"kind": "{model.get("kind", "mlp")}"')
    text = text.replace('"filters": 64', f'"filters": {model.get("filters", 64)}')
    readdressed(path, lambda header: header["__metadata__"].update(config=text))
    for read in (load_trained, load_initialisation):
        with pytest.raises(InnerloopError):
            read(path)


def test_layers_with_inconsistent_shapes_are_rejected(tmp_path: Path, bounded):
    """Every width is found in the file, the products of widths are not."""
    few = {f"body/{i}/weight": np.ones((1, 5000), np.float32) for i in range(20)}
    config = small(hidden=(5000,) * 10)
    for read in (load_trained, load_initialisation):
        with pytest.raises(InnerloopError, match="describes a larger model than the file holds"):
            read(stored(tmp_path / "w.safetensors", few, config))
