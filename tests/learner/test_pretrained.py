"""Initialisations without their data: the same as with them."""

from dataclasses import replace
from pathlib import Path

import jax
import numpy as np
import pytest

from innerloop.config.presets.registry import preset
from innerloop.config.schema import Config, DataConfig, EvaluationConfig, ModelConfig
from innerloop.errors import InnerloopError
from innerloop.learner.learner import Learner
from innerloop.learner.pretrained import load_initialisation
from innerloop.training.experiments.build import build
from innerloop.training.experiments.models import fresh_model
from innerloop.training.storage import weights
from innerloop.training.trained import load_trained


def test_joint_weights_load_with_new_head(tmp_path: Path):
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


def save_model(path, config, shape):
    params = fresh_model(config, shape, jax.random.key(3))
    weights.save(path, params, config, {})
    return params


def image_config(**data):
    model = ModelConfig(filters=4, features="flatten", downsample="pool")
    return Config(data=DataConfig(**data), model=model, evaluation=EvaluationConfig(steps=1))


def test_from_pretrained_reads_no_data(tmp_path, monkeypatch):
    for name in ("INNERLOOP_DATA", "INNERLOOP_CACHE"):
        monkeypatch.setenv(name, str(tmp_path / "nothing"))
    path = tmp_path / "weights.safetensors"
    params = save_model(path, image_config(dataset="omniglot", ways=5), (28, 28, 1))
    learner = Learner.from_pretrained(path)
    jax.tree.map(np.testing.assert_array_equal, learner.params, params)
    assert learner.n_steps == 1
    assert learner.normalization == "inductive"
    assert Learner.from_pretrained(path, steps=7).n_steps == 7
    images = np.random.default_rng(0).integers(0, 256, (6, 28, 28, 1), np.uint8)
    found = learner.fit(images, ["a", "b", "c"] * 2).predict_proba(images[:3])
    again = learner.fit(images / 255, ["a", "b", "c"] * 2).predict_proba(images[:3] / 255)
    np.testing.assert_allclose(found, again, rtol=1e-5)
    for bad, message in (
        (images[..., 0], r"shape \(28, 28, 1\), got \(28, 28\); add the last axis: x\[..., None\]"),
        (images[:, :20], r"got \(20, 28, 1\); resize the images"),
        (np.repeat(images, 3, -1), r"got \(28, 28, 3\); images are \[height, width, channels\]"),
        (images[:, :, 0, 0], r"got \(28,\); images are"),
        (images.astype(np.float32), "pixels must lie in 0..1, got 0 to 255; pass bytes"),
    ):
        with pytest.raises(InnerloopError, match=message):
            learner.fit(bad, ["a", "b", "c"] * 2)


@pytest.mark.parametrize(("size", "shape"), [(0, (None, None, 3)), (32, (32, 32, 3))])
def test_from_pretrained_works_without_image_folder(tmp_path, size, shape):
    config = image_config(dataset="folder", folder="gone", size=size, ways=3)
    save_model(tmp_path / "w.safetensors", config, (32, 48 if size == 0 else 32, 3))
    learner = Learner.from_pretrained(tmp_path / "w.safetensors")
    assert learner.shape == shape
    images = np.random.default_rng(0).integers(0, 256, (4, 32, 48 if size == 0 else 32, 3), np.uint8)
    if size == 0:
        assert learner.fit(images, [0, 1] * 2).predict(images).shape == (4,)
    with pytest.raises(InnerloopError, match="does not accept these inputs|each example must have the shape"):
        learner.fit(images[:, :, :16], [0, 1] * 2)


@pytest.mark.parametrize("size", [0, 8])
def test_from_pretrained_supports_mlp_on_images(tmp_path, size):
    config = replace(image_config(dataset="folder", size=size), model=ModelConfig(kind="mlp", hidden=(4,)))
    save_model(tmp_path / "w.safetensors", config, (8, 8, 3))
    learner = Learner.from_pretrained(tmp_path / "w.safetensors")
    assert learner.shape == ((8, 8, 3) if size else None)
    images = np.zeros((2, 8, 8, 3), np.uint8)
    assert learner.fit(images, [1, 2]).predict(images).shape == (2,)


def test_from_pretrained_supports_regression(tmp_path):
    model = ModelConfig(kind="mlp", hidden=(4,))
    save_model(tmp_path / "w.safetensors", Config(data=DataConfig(dataset="sinusoid"), model=model), (1,))
    learner = Learner.from_pretrained(tmp_path / "w.safetensors", steps=3)
    assert not learner.classification
    x = np.linspace(-5, 50, 9)[:, None]
    assert learner.fit(x / 10, np.sin(x[:, 0])).predict(x / 10).shape == (9,)
    with pytest.raises(InnerloopError, match=r"shape \(1,\), got \(\); add the last axis"):
        learner.fit(x[:, 0], x[:, 0])
    with pytest.raises(InnerloopError, match=r"got \(2,\); give the features"):
        learner.fit(np.hstack([x, x]), x[:, 0])
    with pytest.raises(InnerloopError, match="there is no such preset, folder or file"):
        Learner.from_pretrained("no-such-preset")
