"""SIGKILL at random moments of training, in processes of their own; then one SIGTERM; then the run goes to its end."""

import os
import random
import signal
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from benchmarks.scaling.launch import Process
from tests.compilation import quick_variables, unmeasured
from tests.faults.child import EVERY, LONG

from innerloop.training.experiments.build import build
from innerloop.training.storage import checkpoint, checkpoint_manager, weights
from innerloop.training.storage.run_directory import RunFolder

KILLS = int(os.environ.get("INNERLOOP_KILLS", "3"))
ROOT = Path(__file__).resolve().parents[2]


class Trainings:
    """Child processes that train."""

    def __init__(self):
        self.environment = unmeasured() | {"JAX_NUM_CPU_DEVICES": "2"} | quick_variables()

    def start(self, folder: Path, mode: str) -> Process:
        words = [sys.executable, "-m", "tests.faults.child", str(folder), mode]
        return Process(words, cwd=ROOT, env=self.environment)

    def to_end(self, folder: Path, mode: str) -> None:
        with self.start(folder, mode) as process:
            said = process.told()
        assert process.returncode == 0, said

    def stopped(self, folder: Path, mode: str, draw: random.Random, number: int) -> "tuple[int, str]":
        """Send the signal at a random moment: after a line of metrics, or (one in five) at any time since the start."""
        reached, anywhere = lines(folder), number == signal.SIGKILL and draw.random() < 0.2
        with self.start(folder, mode) as process:
            deadline = time.monotonic() + 300
            while not anywhere and lines(folder) <= reached and process.poll() is None:
                assert time.monotonic() < deadline
                time.sleep(0.005)
            time.sleep(draw.random() * (5.0 if anywhere else 0.5))
            process.send_signal(number)
            said = process.told()
        return process.returncode, said


def lines(folder: Path) -> int:
    path = folder / "metrics.jsonl"
    return path.read_bytes().count(b"\n") if path.exists() else 0


def readable(folder: Path) -> list[int]:
    """The steps of all checkpoints, after reading every one."""
    if not (folder / "checkpoints").is_dir():
        return []
    experiment = build(LONG)
    like = experiment.outer_loop().start(experiment.init_params(), experiment.keys().tasks)
    manager = checkpoint_manager.manager(folder / "checkpoints")
    for step in manager.all_steps():
        assert int(checkpoint.read(manager, step, like).step) == step
    manager.close()
    return sorted(manager.all_steps())


def same_run(folder: Path, other: Path) -> None:
    """Weights to the bit and metrics to the letter."""
    a, b = (weights.load(path / "weights.safetensors")[0] for path in (folder, other))
    assert a.keys() == b.keys()
    for name in a:
        np.testing.assert_array_equal(a[name], b[name])
    assert (folder / "metrics.jsonl").read_text() == (other / "metrics.jsonl").read_text()


@pytest.mark.slow
def test_run_killed_at_random_moments_resumes_bitwise(tmp_path: Path, survived):
    trainings, draw = Trainings(), random.Random(0)
    whole, folder = tmp_path / "whole", tmp_path / "run-0"
    trainings.to_end(whole, "new")
    kills = ended = 0
    lost: list[int] = []
    while kills < KILLS:
        mode = "resume" if (folder / "config.json").exists() else "new"
        code, said = trainings.stopped(folder, mode, draw, signal.SIGKILL)
        if code == 0:  # the run was quicker: another one
            same_run(folder, whole)
            ended += 1
            folder = tmp_path / f"run-{ended}"
            continue
        assert code == -signal.SIGKILL, said
        kills += 1
        last = max(readable(folder), default=0)
        lost.append(2 * lines(folder) - last)
    assert 0 < max(lost) <= 2 * EVERY  # in training; one interval, and the one under way to the disk
    mode = "resume" if (folder / "config.json").exists() else "new"
    code, said = trainings.stopped(folder, mode, draw, signal.SIGTERM)
    assert code == 128 + signal.SIGTERM, said
    assert "everything is saved" in said
    assert max(readable(folder)) == RunFolder(folder).metrics()[-1]["step"]
    trainings.to_end(folder, "resume")
    same_run(folder, whole)
    told = "every checkpoint readable, the resumed run equal to the uninterrupted one to the bit"
    survived(
        "SIGKILL at random moments", KILLS, told, f"at most {max(lost)} meta-steps, checkpoints every {EVERY}"
    )
    survived("SIGTERM (preemption)", 1, "saved, exit code 143, the resumed run equal to the bit", "nothing")
