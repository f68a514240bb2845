"""A run made again is the same to the bit, and a difference is found and told."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from callback_cases import EachBlock

from innerloop.errors import InnerloopError
from innerloop.training.reproduce import (
    Ended,
    Reproduction,
    changed,
    compare,
    difference,
    first_different,
    reproduce,
)
from innerloop.training.storage import weights
from innerloop.training.storage.run_directory import RunFolder


def test_reproduce_gives_identical_bits(finished: Path, tmp_path: Path):
    seen = []
    verdict = reproduce(finished, tmp_path / "again", callbacks=[EachBlock(seen.append)])
    assert verdict.same
    assert (verdict.weights, verdict.metrics, verdict.lines) == (0, None, 6)
    assert verdict.arrays == len(weights.load(finished / "weights.safetensors")[0])
    assert (
        str(verdict)
        == f"Reproduced: the same bits in {verdict.arrays} arrays, the same numbers in 6 log lines."
    )
    assert len(seen) == 6


@pytest.fixture
def copy(finished: Path, tmp_path: Path) -> RunFolder:
    shutil.copytree(finished, tmp_path / "copy")
    return RunFolder(tmp_path / "copy")


def test_compare_detects_one_bit_weight_difference(finished: Path, copy: RunFolder):
    arrays, config, facts = weights.load(copy.weights)
    name = next(name for name in arrays if arrays[name].size > 1)
    largest = np.unravel_index(np.abs(arrays[name]).argmax(), arrays[name].shape)
    arrays[name] = arrays[name].copy()
    arrays[name][largest] = np.nextafter(arrays[name][largest], np.float32(0))
    weights.save(copy.weights, arrays, config, facts)
    verdict = compare(Ended.read(finished), Ended.read(copy.path))
    assert not verdict.same
    assert 2e-8 < verdict.weights < 2e-7
    assert "metrics agree. The recorded environments are the same." in str(verdict)


def test_compare_reports_metric_and_environment_differences(finished: Path, copy: RunFolder):
    lines = copy.metrics()
    lines[3]["outer_loss"] += 1e-15
    (copy.path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    told = json.loads((copy.path / "environment.json").read_text())
    told["packages"]["jax"], told["devices"] = "0.1.2", ["cpu:0"]
    (copy.path / "environment.json").write_text(json.dumps(told))
    verdict = compare(Ended.read(finished), Ended.read(copy.path))
    assert (verdict.same, verdict.weights, verdict.metrics) == (False, 0, 8)
    assert "metrics differ from meta-step 8 on" in str(verdict)
    assert "packages.jax: then " in str(verdict)
    assert ", now 0.1.2" in str(verdict)
    assert set(verdict.circumstances) == {"packages.jax", "devices"}


def test_difference_detects_sign_of_zero():
    assert difference(np.zeros(2), np.zeros(2)) == 0
    assert 0 < difference(np.zeros(2), -np.zeros(2)) < 1e-300
    assert difference(np.array([4.0, 2.0]), np.array([4.0, 1.0])) == 0.25


def test_first_different_reports_missing_lines():
    lines = [{"step": 2, "x": 1.0}, {"step": 4, "x": float("nan")}]
    assert first_different(lines, lines) is None
    assert first_different(lines, lines[:1]) == 4
    assert first_different([], lines) == 2


def test_changed_circumstances_have_dotted_names():
    then, now = (
        {"a": 1, "b": {"c": 2, "d": 3}, "gone": ""},
        {"a": 1, "b": {"c": 2, "d": 4}, "new": ["x", "y"]},
    )
    assert changed(then, now) == {
        "b.d": ("3", "4"),
        "gone": ("unknown", "unknown"),
        "new": ("unknown", "x, y"),
    }


def test_incomparable_runs_raise(finished: Path, copy: RunFolder, tmp_path: Path):
    arrays, config, facts = weights.load(copy.weights)
    arrays.pop(next(iter(arrays)))
    weights.save(copy.weights, arrays, config, facts)
    with pytest.raises(InnerloopError, match="does not hold the same model"):
        compare(Ended.read(finished), Ended.read(copy.path))
    copy.weights.unlink()
    with pytest.raises(InnerloopError, match="has not ended.*innerloop train --resume"):
        reproduce(copy.path, tmp_path / "x")
    with pytest.raises(InnerloopError, match="there is no such folder"):
        reproduce(tmp_path / "none", tmp_path / "x")
    with pytest.raises(InnerloopError, match="already holds a run"):
        reproduce(finished, finished)


@pytest.mark.parametrize("name", ["environment.json", "metrics.jsonl", "weights.safetensors"])
def test_damaged_run_raises_before_training(copy: RunFolder, tmp_path: Path, name: str):
    (copy.path / name).write_bytes(b"\xff\xfe\n")
    with pytest.raises(InnerloopError, match=name):
        reproduce(copy.path, tmp_path / "again")
    assert not (tmp_path / "again").exists()


def test_verdict_str_when_only_metrics_differ():
    told = str(Reproduction(1, 0.0, 2, 4, {}))
    assert told.startswith("Not reproduced: weights are identical; metrics differ from meta-step 4 on.")
