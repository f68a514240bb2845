"""Initialisations without their data: the same as with them."""

from dataclasses import replace
from pathlib import Path

import jax
import numpy as np

from innerloop.config.presets.registry import preset
from innerloop.config.schema import ModelConfig
from innerloop.learner.learner import Learner
from innerloop.learner.pretrained import load_initialisation
from innerloop.training.build import build
from innerloop.training.storage import weights
from innerloop.training.trained import load_trained


def test_ordinary_training_meets_tasks_under_a_new_head(tmp_path: Path):
    """The head told all training classes apart; what adapts to five has zeros, with data and without."""
    config = replace(preset("glyphs-5way-1shot-joint"), model=ModelConfig(kind="mlp", hidden=(4,)))
    path = tmp_path / "joint.safetensors"
    weights.save(path, build(config).init_params(), config, {})
    params = load_initialisation(path)[0]
    jax.tree.map(np.testing.assert_array_equal, params, load_trained(path).params)
    assert params.head.weight.shape == (4, 5)
    learner = Learner.from_pretrained(path, steps=3)
    images = np.random.default_rng(0).integers(0, 256, (4, 28, 28, 1), np.uint8)
    assert learner.fit(images, ["a", "b"] * 2).predict_proba(images).shape == (4, 2)
