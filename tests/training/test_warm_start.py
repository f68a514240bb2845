"""Meta-training that begins with a trained body."""

import hashlib
from dataclasses import replace
from pathlib import Path

import jax
import numpy as np
import pytest
from training_cases import CONFIG, EPISODES

from innerloop.config.schema import Config
from innerloop.engine.pytree import by_path
from innerloop.errors import InnerloopError
from innerloop.training.experiments.build import build
from innerloop.training.storage import shipped, weights
from innerloop.training.storage.run_directory import RunFolder
from innerloop.training.train import train
from innerloop.training.warm_start import WarmStart, absolute


def started(config: Config, source: Path | str) -> Config:
    """The config, beginning with this model."""
    return replace(config, model=replace(config.model, start=str(source)))


def test_run_starts_from_weights_of_another_run(tiny: Config, finished: Path, tmp_path: Path):
    """Its first snapshot is the other's last weights, whose hash it records; resuming needs the other no more."""
    source = tmp_path / "source.safetensors"
    source.write_bytes((finished / "weights.safetensors").read_bytes())
    config = replace(started(tiny, source), outer=replace(tiny.outer, meta_steps=4))
    train(config, tmp_path / "run")
    run = RunFolder(tmp_path / "run")
    before, first, last = (weights.load(path)[0] for path in (source, run.snapshot(0), run.weights))
    for name in before:
        np.testing.assert_array_equal(before[name], first[name])
        assert not np.array_equal(first[name], last[name])
    assert hashlib.sha256(source.read_bytes()).hexdigest() in (run.path / "environment.json").read_text()
    source.unlink()
    assert train(None, tmp_path / "run", resume=True).facts["meta_steps"] == 4


def test_head_of_different_shape_starts_at_zero(tmp_path: Path):
    """The body of a model that told six classes apart, under the head for three ways."""
    joint = replace(EPISODES, config=replace(CONFIG, algorithm="joint", seed=5))
    weights.save(tmp_path / "joint.safetensors", joint.init_params(), joint.config, {})
    fresh = EPISODES.init_params()
    model = WarmStart(str(tmp_path / "joint.safetensors")).params(fresh)
    assert not any(np.any(leaf) for leaf in jax.tree.leaves(model.head))
    assert any(np.any(leaf) for leaf in jax.tree.leaves(fresh.head))
    trained = weights.load(tmp_path / "joint.safetensors")[0]
    body = by_path(model)
    names = [name for name in trained if not name.startswith("head")]
    assert names
    for name in names:
        np.testing.assert_array_equal(body[name], trained[name])


def test_start_with_different_body_raises(tmp_path: Path):
    other = replace(EPISODES, config=replace(CONFIG, model=replace(CONFIG.model, hidden=(5,))))
    weights.save(tmp_path / "other.safetensors", other.init_params(), other.config, {})
    with pytest.raises(InnerloopError, match=r"model.start: does not fit: .*body/0.*same `model`"):
        WarmStart(str(tmp_path / "other.safetensors")).params(EPISODES.init_params())


def test_mismatched_start_leaves_no_config(tiny: Config, tmp_path: Path):
    """So that the right command can be given with the same folder."""
    other = replace(tiny, model=replace(tiny.model, hidden=(5,)))
    weights.save(tmp_path / "other.safetensors", build(other).init_params(), other, {})
    with pytest.raises(InnerloopError, match=r"model.start: does not fit"):
        train(started(tiny, tmp_path / "other.safetensors"), tmp_path / "run")
    assert not (tmp_path / "run" / "config.json").exists()


def test_start_changed_since_run_began_raises(finished: Path):
    """A run that was stopped before its first checkpoint."""
    start = WarmStart(str(finished))
    start.check_unchanged({"data": start.hashes})
    start.check_unchanged({})  # a folder that lost its record
    WarmStart("").check_unchanged({"data": {"train": "0"}})
    with pytest.raises(InnerloopError, match=r"model.start: has changed since the run began"):
        start.check_unchanged({"data": {"start": "0"}})


def test_start_resolves_to_shipped_model_or_absolute_path(
    tiny: Config, finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """A shipped model goes before a folder of its name; a relative path is kept as an absolute one."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "sinusoid-maml").mkdir()
    assert WarmStart("sinusoid-maml").path == shipped.path("sinusoid-maml")
    assert absolute(started(tiny, "sinusoid-maml")).model.start == "sinusoid-maml"
    (tmp_path / "near").symlink_to(finished)
    assert absolute(started(tiny, "near")).model.start == str(finished.resolve())
    assert absolute(tiny) == tiny
    assert absolute(started(tiny, "nowhere")).model.start == "nowhere"  # told where it is read


def test_data_folder_becomes_absolute_path(tiny: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A run on one's own pictures is measured, resumed and made again from anywhere."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "pictures").mkdir()
    in_folder = lambda folder: replace(tiny, data=replace(tiny.data, folder=folder))
    for folder in ("pictures", "../" + tmp_path.name + "/pictures", "~/pictures"):
        assert absolute(in_folder(folder)).data.folder == str((tmp_path / "pictures").resolve())
    assert absolute(in_folder("nowhere")) == in_folder("nowhere")  # told where it is read


def test_start_is_cast_to_dtype_of_run(finished: Path):
    """Under double precision the whole model is double, or its checkpoints could not be read back."""
    with jax.enable_x64(True):
        fresh = build(RunFolder(finished).config()).init_params()
        found = WarmStart(str(finished)).params(fresh)
    assert {leaf.dtype.name for leaf in jax.tree.leaves(found)} == {"float64"}


def test_missing_start_raises_before_training(tiny: Config, tmp_path: Path):
    with pytest.raises(InnerloopError, match="no-such-model"):
        train(started(tiny, "no-such-model"), tmp_path / "run")
    assert not (tmp_path / "run" / "config.json").exists()
