"""A script that calls `innerloop.fit` on a model of Equinox, killed at random moments and started again unchanged."""

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
from tests.faults.fit_child import PARAMS, SETTINGS

import innerloop as il

KILLS = int(os.environ.get("INNERLOOP_KILLS", "2"))
ROOT = Path(__file__).resolve().parents[2]
ENVIRONMENT = unmeasured() | {"JAX_NUM_CPU_DEVICES": "2"} | quick_variables()


def start(folder: Path) -> Process:
    return Process([sys.executable, "-m", "tests.faults.fit_child", str(folder)], cwd=ROOT, env=ENVIRONMENT)


def to_end(folder: Path) -> None:
    with start(folder) as process:
        said = process.told()
    assert process.returncode == 0, said


def lines(folder: Path) -> int:
    path = folder / "metrics.jsonl"
    return path.read_bytes().count(b"\n") if path.exists() else 0


def stopped(folder: Path, draw: random.Random, number: int) -> tuple[int, float, str]:
    """Send the signal within half a second of a new line of metrics: code, seconds until the end, what was said."""
    reached = lines(folder)
    with start(folder) as process:
        deadline = time.monotonic() + 300
        while lines(folder) <= reached and process.poll() is None:
            assert time.monotonic() < deadline
            time.sleep(0.005)
        time.sleep(0.5 * draw.random())
        process.send_signal(number)
        sent = time.monotonic()
        process.wait()
        seconds = time.monotonic() - sent
        said = process.told()
    return process.returncode, seconds, said


@pytest.mark.slow
def test_killed_fit_script_resumes_bitwise(tmp_path: Path, survived):
    draw, whole, folder = random.Random(0), tmp_path / "whole", tmp_path / "run"
    to_end(whole)
    for _ in range(KILLS):
        code, _, said = stopped(folder, draw, signal.SIGKILL)
        assert code == -signal.SIGKILL, said
    code, seconds, said = stopped(folder, draw, signal.SIGTERM)
    assert code == 128 + signal.SIGTERM, said
    assert seconds < 5
    assert 0 < lines(folder) * SETTINGS["log_every"] < SETTINGS["meta_steps"]
    to_end(folder)
    for which in ("final", "best"):
        own, other = (il.load_params(path, PARAMS, which) for path in (folder, whole))
        for a, b in zip(own.layers, other.layers, strict=True):
            np.testing.assert_array_equal(np.asarray(a.weight), np.asarray(b.weight))
            np.testing.assert_array_equal(np.asarray(a.bias), np.asarray(b.bias))
    assert (folder / "metrics.jsonl").read_text() == (whole / "metrics.jsonl").read_text()
    told = "the same script started again: weights, best weights and metrics equal to the bit"
    lost = f"at most the {SETTINGS['checkpoint_every']} meta-steps since a checkpoint"
    survived("SIGKILL of a script with `innerloop.fit` on an Equinox model", KILLS, told, lost)
    survived("SIGTERM of such a script", 1, "`Stopped` within 5 s, resumed to the bit", "nothing")
