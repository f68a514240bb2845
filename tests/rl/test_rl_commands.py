"""A run in reinforcement learning from the command line: train, stop, resume, evaluate, report."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from innerloop.cli import main
from innerloop.errors import InnerloopError
from innerloop.training.storage import weights
from innerloop.training.storage.run_directory import RunFolder

SMALL = [
    *("--model.hidden", "6"),
    *("--outer.meta-steps", "4", "--outer.meta-batch", "2", "--outer.log-every", "2"),
    *("--outer.checkpoint-every", "2", "--outer.validate-every", "4"),
    *("--evaluation.steps", "1", "--evaluation.validation-tasks", "2", "--evaluation.tasks", "2"),
    *("--rl.trajectories", "3", "--rl.test-trajectories", "3", "--rl.horizon", "6"),
]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "walk"
    assert main(["train", "navigation-maml-trpo", *SMALL, "--folder", str(folder)]) == 0
    return folder


def test_train_writes_metrics_and_weights(finished: Path):
    records = RunFolder(finished).metrics()
    assert [record["step"] for record in records] == [2, 4]
    assert {"return_after_0", "return_after_1", "kl", "step_length", "outer_loss"} <= set(records[0])
    assert "validation_return" in records[-1]
    assert weights.load(finished / "weights.safetensors")[1].rl.horizon == 6


def test_resumed_run_is_bitwise_identical(finished: Path, tmp_path: Path):
    """Its last checkpoint taken away, it goes on from the one before."""
    import shutil

    copy = tmp_path / "again"
    shutil.copytree(finished, copy)
    shutil.rmtree(copy / "checkpoints" / "4")
    (copy / "weights.safetensors").unlink()
    assert main(["train", "--resume", str(copy)]) == 0
    first, second = (weights.load(f / "weights.safetensors")[0] for f in (finished, copy))
    for name in first:
        np.testing.assert_array_equal(first[name], second[name])


def test_evaluate_prints_json_or_text(finished: Path, capsys: pytest.CaptureFixture):
    assert main(["evaluate", str(finished), "--tasks", "4", "--steps", "2", "--json"]) == 0
    record: dict[str, Any] = json.loads(capsys.readouterr().out)
    assert len(record["returns"]) == len(record["ci95"]) == 3
    assert record["tasks"] == 4
    assert all(value > 0 for value in record["ci95"])
    assert main(["evaluate", str(finished), "--tasks", "4", "--steps", "2"]) == 0
    told = capsys.readouterr().out
    for words in ("undiscounted return", "4 test tasks", "step size 0.5, then 0.25", "reward distance"):
        assert words in told


def test_report_includes_navigation_paths(finished: Path):
    assert main(["report", str(finished), "--tasks", "4"]) == 0
    page = (finished / "report.html").read_text()
    assert "2D navigation" in page
    assert (finished / "figures" / "paths.png").stat().st_size > 1000
    assert (finished / "figures" / "adaptation.png").exists()


def test_unsupported_options_exit_with_2(finished: Path, capsys: pytest.CaptureFixture, tmp_path: Path):
    assert main(["evaluate", str(finished), "--normalization", "support"]) == 2
    assert "the network has no batch normalisation" in capsys.readouterr().err
    assert main(["evaluate", str(finished), "--queries", "7"]) == 2
    assert "--queries: policies learn from trajectories, got 7" in capsys.readouterr().err
    assert main(["adapt", str(finished), "--support", str(tmp_path)]) == 2
    assert main(["train", "navigation-maml-trpo", "--rl.discount", "2", "--folder", str(tmp_path / "x")]) == 2


@pytest.mark.parametrize("outer", ["trpo", "gradient"])
def test_divergence_raises_with_meta_step(finished: Path, tmp_path: Path, outer: str):
    """An inner step of 1e30: what was adapted is not finite, and so is what it does."""
    from innerloop.training.train import train

    config = RunFolder(finished).config()
    steep, plain = replace(config.inner, learning_rate=1e30), replace(config.rl, outer=outer)
    wild = replace(config, inner=steep, rl=plain)
    with pytest.raises(InnerloopError, match="diverged at meta-step 1"):
        train(wild, tmp_path / "wild")
