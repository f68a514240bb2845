"""The precision of a run: kept in its config, in force while it trains and is measured, told with its numbers."""

from dataclasses import replace
from pathlib import Path
from typing import get_args

import jax
import pytest

from innerloop.config.presets.registry import preset
from innerloop.config.schema import Precision
from innerloop.config.serialization import from_json, to_json
from innerloop.errors import InnerloopError
from innerloop.parallel import precision
from innerloop.training.measure import measure
from innerloop.training.train import train
from innerloop.training.trained import load_trained


def asked_for() -> str | None:
    return jax.config.jax_default_matmul_precision  # pyright: ignore[reportAttributeAccessIssue]


def test_config_json_keeps_precision():
    config = replace(preset("sinusoid-maml"), precision="bfloat16")
    assert from_json(to_json(config), "config").precision == "bfloat16"


def test_precision_applies_within_context_on_accelerator(monkeypatch: pytest.MonkeyPatch):
    """TF32 and bfloat16 factors; the setting of the user's own program is there again afterwards."""
    before = asked_for()
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    assert set(precision.PRODUCTS) == set(get_args(Precision))
    for name, wanted in precision.PRODUCTS.items():
        with precision.products(name):
            assert asked_for() == wanted
            assert precision.product_precision() == wanted
    assert asked_for() == before


def test_cpu_supports_only_float32(tmp_path: Path):
    """Training is refused before a folder is made; a model from elsewhere is measured, and the number says how."""
    config = replace(preset("sinusoid-maml"), precision="tf32")
    with pytest.raises(InnerloopError, match=r"precision: a CPU only multiplies in float32, got tf32"):
        train(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()
    trained = load_trained("sinusoid-maml")
    trained = replace(trained, experiment=trained.experiment.with_config(config))
    assert measure(trained, num_tasks=2).to_json()["precision"] == "float32"
