"""Meta-training that begins with a trained body."""

import hashlib
from dataclasses import replace
from pathlib import Path

import jax
import numpy as np
import pytest
from engine_cases import CONFIG, EPISODES

from innerloop import weights
from innerloop.config import Config
from innerloop.errors import InnerloopError
from innerloop.run_folder import RunFolder
from innerloop.start import with_body
from innerloop.train import train


def started(config: Config, source: Path | str) -> Config:
    """The config, beginning with this model."""
    return replace(config, model=replace(config.model, start=str(source)))


def test_a_run_begins_where_another_ended(tiny: Config, finished: Path, tmp_path: Path):
    """Its first snapshot is the other's last weights; it trains on from there; resuming needs the other no more."""
    source = tmp_path / "source.safetensors"
    source.write_bytes((finished / "weights.safetensors").read_bytes())
    config = replace(started(tiny, source), outer=replace(tiny.outer, meta_steps=4))
    train(config, tmp_path / "run")
    run = RunFolder(tmp_path / "run")
    before, first, last = (weights.load(path)[0] for path in (source, run.snapshot(0), run.weights))
    for name in before:
        np.testing.assert_array_equal(before[name], first[name])
        assert not np.array_equal(first[name], last[name])
    source.unlink()
    assert int(train(None, tmp_path / "run", resume=True).step) == 4


def test_the_run_folder_says_from_what_it_began(tiny: Config, finished: Path, tmp_path: Path):
    config = replace(started(tiny, finished), outer=replace(tiny.outer, meta_steps=0))
    train(config, tmp_path / "run")
    text = (tmp_path / "run" / "environment.json").read_text()
    assert hashlib.sha256((finished / "weights.safetensors").read_bytes()).hexdigest() in text


def test_a_head_of_another_shape_begins_at_zero(tmp_path: Path):
    """The body of a model that told six classes apart, under the head for three ways."""
    joint = replace(EPISODES, config=replace(CONFIG, algorithm="joint", seed=5))
    weights.save(tmp_path / "joint.safetensors", joint.init_params(), joint.config, {})
    fresh = EPISODES.init_params()
    model = with_body(fresh, str(tmp_path / "joint.safetensors"))
    assert not any(np.any(leaf) for leaf in jax.tree.leaves(model.head))
    assert any(np.any(leaf) for leaf in jax.tree.leaves(fresh.head))
    trained = weights.load(tmp_path / "joint.safetensors")[0]
    body = dict(zip(weights.paths(model), jax.tree.leaves(model), strict=True))
    names = [name for name in trained if not name.startswith("head")]
    assert names
    for name in names:
        np.testing.assert_array_equal(body[name], trained[name])


def test_another_body_is_refused(tmp_path: Path):
    other = replace(EPISODES, config=replace(CONFIG, model=replace(CONFIG.model, hidden=(5,))))
    weights.save(tmp_path / "other.safetensors", other.init_params(), other.config, {})
    with pytest.raises(InnerloopError, match=r"--model.start: does not fit: .*body/0.*same --model"):
        with_body(EPISODES.init_params(), str(tmp_path / "other.safetensors"))


def test_a_missing_start_is_told_before_training(tiny: Config, tmp_path: Path):
    with pytest.raises(InnerloopError, match="no-such-model"):
        train(started(tiny, "no-such-model"), tmp_path / "run")
    assert not (tmp_path / "run" / "config.json").exists()
