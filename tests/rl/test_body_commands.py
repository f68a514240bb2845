"""A body from the command line: train, evaluate, report with its film; without the extra, one sentence.

Stopping and resuming is tested with navigation: what a checkpoint holds does not depend on the environment.
"""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from innerloop.cli import main
from innerloop.config.presets.registry import preset
from innerloop.io.versions import required
from innerloop.report import film_strip, measurements, run_page
from innerloop.rl.environments import Locomotion
from innerloop.rl.environments.mujoco.models import HALF_CHEETAH, load_model
from innerloop.training.measurement import ReturnMeasurement
from innerloop.training.storage.run_directory import RunFolder
from innerloop.training.trained import load_trained

SMALL = [
    *("--model.hidden", "6"),
    *("--outer.meta-steps", "2", "--outer.meta-batch", "2", "--outer.checkpoint-every", "1"),
    *("--evaluation.steps", "1", "--evaluation.validation-tasks", "2", "--evaluation.tasks", "2"),
    *("--rl.trajectories", "3", "--rl.test-trajectories", "3", "--rl.horizon", "6"),
    *("--rl.outer", "gradient", "--rl.baseline", "none"),
]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "run"
    assert main(["train", "half-cheetah-velocity-anil-trpo", *SMALL, "--folder", str(folder)]) == 0
    return folder


def test_train_writes_metrics_and_config(finished: Path):
    records = RunFolder(finished).metrics()
    assert [record["step"] for record in records] == [1, 2]
    assert np.isfinite([record["return_after_1"] for record in records]).all()
    assert RunFolder(finished).config().data.dataset == "half_cheetah_velocity"


def test_evaluate_prints_json(finished: Path, capsys: pytest.CaptureFixture):
    assert main(["evaluate", str(finished), "--tasks", "2", "--json"]) == 0
    record: dict[str, Any] = json.loads(capsys.readouterr().out)
    assert (len(record["returns"]), record["reward"], record["horizon"]) == (2, "velocity", 6)
    assert record["diverged_tasks"] == 0


def test_report_includes_film_strip(finished: Path):
    """The block of a report that shows what policies do; the rest is the same as for navigation."""
    trained = load_trained(finished)
    measured = object.__new__(ReturnMeasurement)  # the film asks for its score alone
    object.__setattr__(measured, "score", "return")
    run = measurements.Result("ANIL", trained, measured, [], {})
    block = run_page.EXAMPLES[run.score](measurements.Group(measurements._problem(trained), [run], []))
    assert measurements._problem(trained) == "Half-cheetah, velocity, 6 steps"
    assert 'alt="film strip"' in block
    with Image.open(finished / "figures" / "film.png") as picture:
        assert picture.width > 1000
        assert len(picture.convert("L").getcolors(1 << 16) or []) > 20


def test_pose_is_recovered_from_observation():
    """The half-cheetah's own place on the track is not observed; its centre of mass tells it."""
    mujoco, model = required("mujoco", "rl", "test"), load_model(HALF_CHEETAH)
    data = mujoco.MjData(model)
    data.qpos = np.linspace(-0.4, 0.4, 9) + 3
    mujoco.mj_kinematics(model, data)
    mujoco.mj_comPos(model, data)
    seen = np.concatenate([data.qpos[1:], np.zeros(9), data.subtree_com[1], [1.0]])  # and an oracle's word
    np.testing.assert_allclose(Locomotion().pose(seen), data.qpos, atol=1e-9)


def test_capsule_outline_lies_at_its_radius():
    """Every point within its radius of the line, and none beyond."""
    outline = film_strip._capsule(np.array([0.0, 1.0]), np.array([2.0, 1.0]), 0.5)
    nearest = np.clip(outline[:, 0], 0, 2)
    np.testing.assert_allclose(np.hypot(outline[:, 0] - nearest, outline[:, 1] - 1), 0.5)
    assert (outline[:, 0].min(), outline[:, 0].max()) == pytest.approx((-0.5, 2.5), abs=0.01)


def test_presets_have_published_settings():
    ant, cheetah = preset("ant-direction-maml-trpo"), preset("half-cheetah-direction-anil-trpo")
    assert (ant.rl.trajectories, ant.outer.meta_batch, ant.rl.horizon, ant.inner.learning_rate) == (
        40,
        40,
        200,
        0.1,
    )
    assert (ant.rl.test_lr_decay, cheetah.rl.test_lr_decay, cheetah.rl.trajectories) == (0.01, 0.5, 20)
    assert (cheetah.algorithm, cheetah.model.hidden, cheetah.evaluation.steps) == ("anil", (100, 100), 3)


def test_train_without_rl_extra_suggests_installation(
    tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setitem(sys.modules, "mujoco", None)
    load_model.cache_clear()
    assert main(["train", "ant-velocity-maml-trpo", "--folder", str(tmp_path / "run")]) == 2
    assert "pip install 'innerloop[rl]'" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
