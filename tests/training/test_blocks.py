"""Blocks are computed in dispatches of about a second: a signal within a block loses nothing and changes no bit."""

import json
import os
import signal
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from callback_cases import EachBlock
from test_interruption import same_run

from innerloop.config.presets.registry import preset
from innerloop.config.schema import Config, EvaluationConfig
from innerloop.engine.outer import task_draws
from innerloop.engine.outer.mesh_loop import MeshLoop
from innerloop.training.interruption import signals
from innerloop.training.interruption.signals import Stopped
from innerloop.training.progress import pace
from innerloop.training.progress.pace import Pace
from innerloop.training.progress.progress import Progress
from innerloop.training.recording.block_log import EMPTY, BlockLog, of_record
from innerloop.training.storage import checkpoint_manager
from innerloop.training.storage.run_directory import RunFolder
from innerloop.training.train import train


@pytest.fixture(autouse=True)
def one_step_at_a_time(monkeypatch: pytest.MonkeyPatch):
    """Tasks are not drawn ahead, and no dispatch is short enough for a second meta-step."""
    monkeypatch.setattr(task_draws, "AHEAD_BYTES", 0)
    monkeypatch.setattr(pace, "TARGET_SECONDS", 0.0)


def blocks_of_six(config: Config) -> Config:
    return replace(config, outer=replace(config.outer, log_every=6, checkpoint_every=6))


@pytest.fixture(scope="module")
def waves(tiny: Config) -> Config:
    return blocks_of_six(tiny)


@pytest.fixture(scope="module")
def whole(waves: Config, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of `waves` that was never interrupted, in dispatches that are as long as possible."""
    folder = tmp_path_factory.mktemp("blocks") / "whole"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(task_draws, "AHEAD_BYTES", 0)
        patch.setattr(pace, "TARGET_SECONDS", 1e6)
        train(waves, folder)
    return folder


@pytest.fixture(scope="module")
def walks() -> Config:
    """Navigation: six meta-iterations."""
    base = preset("navigation-maml-trpo")
    return replace(
        base,
        model=replace(base.model, hidden=(4,)),
        outer=replace(
            base.outer, meta_steps=6, meta_batch=2, log_every=6, validate_every=0, checkpoint_every=6
        ),
        evaluation=EvaluationConfig(tasks=2, steps=1, validation_tasks=2),
        rl=replace(base.rl, outer="gradient", trajectories=2, test_trajectories=2, horizon=5),
    )


def signal_in_dispatch(number: int, monkeypatch: pytest.MonkeyPatch, wait: Path | None = None) -> list[int]:
    """The lengths of the dispatches; in one of them a signal comes (and it lasts until `wait` is there)."""
    lengths, own = [], MeshLoop.run

    def run(self: MeshLoop, state: Any, steps: int, **settings: Any):
        lengths.append(steps)
        if len(lengths) == number:
            os.kill(os.getpid(), signal.SIGTERM)
            deadline = time.monotonic() + 60
            while wait and not wait.exists() and time.monotonic() < deadline:
                time.sleep(0.02)
        return own(self, state, steps, **settings)

    monkeypatch.setattr(MeshLoop, "run", run)
    return lengths


def stopped_at_four(config: Config, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that was stopped in the middle of its first block."""
    with monkeypatch.context() as patch:
        lengths = signal_in_dispatch(4, patch)
        with pytest.raises(Stopped, match="stopped at meta-step 4; state saved"):
            train(config, folder)
    assert lengths == [1, 1, 1, 1]
    assert checkpoint_manager.manager(folder / "checkpoints").all_steps() == [4]
    assert RunFolder(folder).metrics() == []


def test_policy_run_stopped_mid_block_resumes_bitwise(walks: Config, tmp_path: Path, monkeypatch):
    """The resumed run has the bits and the metrics of one without a signal."""
    train(walks, tmp_path / "whole")
    stopped_at_four(walks, tmp_path / "run", monkeypatch)
    train(None, tmp_path / "run", resume=True)
    same_run(tmp_path / "run", tmp_path / "whole")


def test_run_stopped_mid_block_can_end_at_that_step(waves: Config, whole: Path, tmp_path: Path, monkeypatch):
    """It logs the block as a run of this length does, once; made longer again, it goes on with the block."""
    four = replace(waves, outer=replace(waves.outer, meta_steps=4))
    train(four, tmp_path / "four")
    stopped_at_four(waves, tmp_path / "run", monkeypatch)
    for _ in range(2):
        train(four, tmp_path / "run", resume=True)
        same_run(tmp_path / "run", tmp_path / "four")
    train(waves, tmp_path / "run", resume=True)
    same_run(tmp_path / "run", whole)


def test_slow_dispatch_is_abandoned_after_saving_prior_state(
    waves: Config, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """The state before it is saved meanwhile, with what was logged until then."""
    with monkeypatch.context() as patch:
        signal_in_dispatch(9, patch, wait=tmp_path / "run" / "block.json")
        patch.setattr(signals, "GRACE_SECONDS", 0.1)
        with pytest.raises(Stopped, match="stopped at meta-step 8"):
            train(waves, tmp_path / "run")
    record = json.loads((tmp_path / "run" / "block.json").read_text())
    assert (record["step"], len(record["series"]["outer_loss"])) == (8, 2)
    train(None, tmp_path / "run", resume=True)
    same_run(tmp_path / "run", whole)


def test_lost_block_record_affects_only_that_log_line(
    waves: Config, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    with monkeypatch.context() as patch:
        signal_in_dispatch(4, patch)
        with pytest.raises(Stopped):
            train(waves, tmp_path / "run")
    (tmp_path / "run" / "block.json").unlink()
    train(None, tmp_path / "run", resume=True)
    a, b = (RunFolder(folder).metrics() for folder in (tmp_path / "run", whole))
    assert a[0]["outer_loss"] != b[0]["outer_loss"]
    assert a[1] == b[1]


def test_dispatch_length_changes_neither_program_nor_bits(
    waves: Config, whole: Path, tmp_path: Path, monkeypatch
):
    made, own = [], MeshLoop.program
    monkeypatch.setattr(MeshLoop, "program", lambda self, steps: made.append(steps) or own(self, steps))
    train(waves, tmp_path / "cut")
    same_run(tmp_path / "cut", whole)
    assert made == [6]


def test_shorter_last_block_reuses_compiled_program(waves: Config, tmp_path: Path, monkeypatch):
    made, own = [], MeshLoop.program
    monkeypatch.setattr(MeshLoop, "program", lambda self, steps: made.append(steps) or own(self, steps))
    seen: list[Progress] = []
    train(
        replace(waves, outer=replace(waves.outer, meta_steps=10)),
        tmp_path / "run",
        callbacks=[EachBlock(seen.append)],
    )
    assert [progress.step for progress in seen] == [6, 10]
    assert made == [6]


def test_speed_and_time_left_exclude_compilation(
    waves: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """The first dispatch and the first validation take half a minute each; the others nothing."""
    now, own = [0.0], MeshLoop.run
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    calls: list[int] = []

    def run(self: MeshLoop, state: Any, steps: int, **settings: Any):
        calls.append(steps)
        now[0] += 30.0 if len(calls) == 1 else 0.5
        return own(self, state, steps, **settings)

    monkeypatch.setattr(MeshLoop, "run", run)
    from innerloop.training.loop import TrainingLoop

    validate = TrainingLoop.validate

    def slow(self: TrainingLoop) -> dict[str, float]:
        now[0] += 30.0
        return validate(self)

    monkeypatch.setattr(TrainingLoop, "validate", slow)
    config = replace(waves, outer=replace(waves.outer, validate_every=6, meta_steps=18))
    seen: list[Progress] = []
    train(config, tmp_path / "run", callbacks=[EachBlock(seen.append)])
    assert seen[0].tasks_per_second == pytest.approx(2 * 2.0)
    assert seen[0].seconds_left == pytest.approx(12 * 0.5)
    later = 11 / (11 * 0.5 + 30)
    assert seen[1].seconds_left == pytest.approx(6 / later)
    assert seen[2].seconds_left == 0


def test_single_dispatch_run_reports_nan_speed(waves: Config, tmp_path: Path):
    seen: list[Progress] = []
    config = replace(waves, outer=replace(waves.outer, meta_steps=1))
    train(config, tmp_path / "run", callbacks=[EachBlock(seen.append)])
    assert np.isnan(seen[0].tasks_per_second)
    assert seen[0].seconds_left == 0


@pytest.mark.parametrize("unit", [1, 5])
def test_dispatch_length_grows_to_target_seconds(unit: int, monkeypatch: pytest.MonkeyPatch):
    """At a hundredth of a second for each meta-step; the first time, of compilation, says nothing."""
    monkeypatch.setattr(pace, "TARGET_SECONDS", 1.0)
    found, lengths = Pace(unit), []
    for _ in range(8):
        lengths.append(found.next(1000))
        found.record(lengths[-1], 60.0 if len(lengths) == 1 else 0.01 * lengths[-1])
    assert lengths[:3] == [unit, unit, 4 * unit]
    assert lengths[-1] == 100
    assert found.next(30) == 30
    assert found.next(32) == (32 if unit == 1 else 30)
    assert found.next(3) == 3
    found.record(100, 1000.0)
    assert found.next(1000) == unit


RECORD = BlockLog({"a": [1.0, 2.0]}, {"broken": {"trajectories": 1}}).to_json(8)


@pytest.mark.parametrize(
    "change",
    [{"step": 7}, {"step": None}, {"series": [1.0]}, {"series": {"a": [1.0]}}, {"series": {"a": [1.0, "x"]}},
     {"series": {"a": 3}}, {"incidents": 3}],
)  # fmt: skip
def test_mismatched_block_record_is_ignored(change):
    assert of_record(RECORD, 8, 2) == BlockLog(RECORD["series"], RECORD["incidents"])
    assert of_record(RECORD | change, 8, 2) == EMPTY
    assert of_record({}, 8, 2) == EMPTY


def test_block_log_sums_incidents():
    first = {"broken": {"trajectories": 2, "family": "x", "first": {"meta_step": 3}}}
    second = {"broken": {"trajectories": 5, "family": "x", "first": {"meta_step": 9}}}
    log = EMPTY.extended({"a": [1.0]}, {}).extended({"a": [2.0]}, first).extended({"a": [6.0]}, second)
    assert log.means() == {"a": 3.0}
    assert log.incidents == {"broken": {"trajectories": 7, "family": "x", "first": {"meta_step": 3}}}
