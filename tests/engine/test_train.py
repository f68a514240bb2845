"""The training run: interrupted anywhere and resumed, it ends with the same bits; and it says what went wrong."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from innerloop import checkpoint, outer, weights
from innerloop.config import Config, to_json
from innerloop.errors import InnerloopError
from innerloop.experiment import build
from innerloop.outer import StepInfo
from innerloop.run_folder import RunFolder
from innerloop.train import Progress, Stopped, asked_to_stop, check_finite, due, train


def same_run(folder: Path, other: Path) -> None:
    """Weights to the bit and metrics to the letter."""
    assert (folder / "weights.safetensors").read_bytes()
    a, b = (weights.load(path / "weights.safetensors")[0] for path in (folder, other))
    assert a.keys() == b.keys()
    for name in a:
        np.testing.assert_array_equal(a[name], b[name])
    assert (folder / "metrics.jsonl").read_text() == (other / "metrics.jsonl").read_text()


def stop_at(step: int, number: int = signal.SIGTERM):
    """Sends the process a signal when that step is reported."""
    return lambda progress: os.kill(os.getpid(), number) if progress.step == step else None


def test_what_a_run_leaves(tiny: Config, finished: Path):
    run = RunFolder(finished)
    records = run.metrics()
    assert [record["step"] for record in records] == [2, 4, 6, 8, 10, 12]
    assert [record["step"] for record in records if "validation_loss" in record] == [6, 12]
    assert {"outer_loss", "grad_norm", "inner_loss_first"} <= set(records[0])
    assert run.config() == tiny
    assert sorted(int(p.name) for p in run.checkpoints.iterdir()) == [4, 8, 12]
    assert list((finished / "tensorboard").iterdir())
    assert weights.load(run.weights)[2]["meta_steps"] == 12


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_saves_and_a_resumed_run_is_the_same(
    tiny: Config, finished: Path, tmp_path: Path, number: int
):
    """Stopped at step 6, which is no checkpoint of its own."""
    handler = signal.getsignal(number)
    with pytest.raises(Stopped, match="stopped at meta-step 6; state saved") as stopped:
        train(tiny, tmp_path / "run", watch=stop_at(6, number))
    assert (stopped.value.signal_number, stopped.value.step) == (number, 6)
    assert signal.getsignal(number) is handler
    assert checkpoint.manager(tmp_path / "run" / "checkpoints").latest_step() == 6
    seen: list[Progress] = []
    state = train(None, tmp_path / "run", resume=True, watch=seen.append)
    assert int(state.step) == 12
    assert [progress.step for progress in seen] == [8, 10, 12]
    assert seen[-1].seconds_left == 0
    assert seen[-1].tasks_per_second > 0
    same_run(tmp_path / "run", finished)


def test_a_signal_at_the_last_step_ends_the_run(tiny: Config, finished: Path, tmp_path: Path):
    train(tiny, tmp_path / "run", watch=stop_at(12))
    same_run(tmp_path / "run", finished)


def test_resuming_a_finished_run_changes_nothing(finished: Path):
    before = weights.load(finished / "weights.safetensors")[0]
    (finished / "weights.safetensors").unlink()
    assert int(train(None, finished, resume=True).step) == 12
    after = weights.load(finished / "weights.safetensors")[0]
    for name in before:
        np.testing.assert_array_equal(before[name], after[name])


SLOW = """
import sys, time
from innerloop.config import from_json
from innerloop.train import train
train(from_json(sys.argv[1]), sys.argv[2], resume=sys.argv[3] == "resume", watch=lambda p: time.sleep(0.02))
"""


@pytest.mark.slow
def test_killed_at_random_moments(tiny: Config, tmp_path: Path):
    """SIGKILL three times, at moments drawn at random after a line was written, then resumed to the end."""
    config = replace(
        tiny, outer=replace(tiny.outer, meta_steps=90, log_every=1, checkpoint_every=2, validate_every=0)
    )
    whole = tmp_path / "whole"
    train(config, whole)
    folder, draw, reached = tmp_path / "killed", random.Random(0), 0
    environment = os.environ | {"JAX_NUM_CPU_DEVICES": "2"}
    for attempt in range(3):
        mode = "resume" if attempt else "new"
        command = [sys.executable, "-c", SLOW, to_json(config), str(folder), mode]
        with subprocess.Popen(command, env=environment, stderr=subprocess.PIPE) as process:
            target, deadline = reached + draw.randint(3, 20), time.monotonic() + 300
            while reached < target and process.poll() is None and time.monotonic() < deadline:
                time.sleep(0.005)
                reached = len(RunFolder(folder).metrics())
            time.sleep(draw.random() * 0.02)
            process.kill()
            assert process.stderr is not None
            assert process.wait() == -signal.SIGKILL, process.stderr.read().decode()
        assert not (folder / "weights.safetensors").exists()
    train(None, folder, resume=True)
    same_run(folder, whole)


def test_divergence_is_named_and_the_last_good_state_kept(tiny: Config, tmp_path: Path):
    """An outer step of 1e6: finite at first, then not."""
    wild = replace(
        tiny,
        outer=replace(
            tiny.outer, learning_rate=1e6, optimizer="sgd", log_every=1, checkpoint_every=1, validate_every=0
        ),
    )
    with pytest.raises(
        InnerloopError, match=r"diverged at meta-step (\d+), in .*; lower --inner.learning-rate"
    ) as e:
        train(wild, tmp_path / "run")
    step = int(str(e.value).split("meta-step ")[1].split(",")[0])
    assert "the last good checkpoint is kept in" in str(e.value)
    manager = checkpoint.manager(tmp_path / "run" / "checkpoints")
    assert manager.latest_step() == step - 1 > 0
    experiment = build(wild)
    like = outer.init(experiment.init_params(), experiment.optimizer, experiment.keys().tasks)
    kept = checkpoint.restore(manager, like)
    assert kept is not None
    assert all(np.isfinite(np.asarray(x)).all() for x in jax.tree.leaves(kept.params))
    assert not (tmp_path / "run" / "weights.safetensors").exists()


def test_an_inner_rate_of_a_million_names_the_inner_step(tiny: Config, tmp_path: Path):
    wild = replace(tiny, inner=replace(tiny.inner, learning_rate=1e9, steps=20))
    with pytest.raises(InnerloopError, match=r"meta-step 1, in inner step \d+, got outer loss (nan|inf)"):
        train(wild, tmp_path / "run")


@pytest.mark.parametrize(
    ("field", "index", "where"),
    [
        ("inner_losses", (1, 2), "meta-step 9, in inner step 2"),
        ("outer_loss", (2,), "meta-step 10, in the query"),
        ("grad_norm", (0,), "meta-step 8, in the query"),
    ],
)
def test_where_a_run_diverged(field: str, index: tuple, where: str):
    """The last of three steps of this dispatch is number 10."""
    values: list[Any] = [np.ones(shape) for shape in (3, (3, 4), 3)]
    sound = StepInfo(*values)
    check_finite(sound, 10, Path("run"))
    check_finite(sound._replace(inner_losses=jnp.ones((3, 0))), 10, Path("run"))
    getattr(sound, field)[index] = np.nan
    with pytest.raises(InnerloopError, match=where):
        check_finite(StepInfo(*map(jnp.asarray, sound)), 10, Path("run"))


def test_wrong_calls(tiny: Config, finished: Path, tmp_path: Path):
    with pytest.raises(InnerloopError, match="needs a config"):
        train(None, tmp_path / "x")
    with pytest.raises(InnerloopError, match="holds a run already"):
        train(tiny, finished)
    with pytest.raises(InnerloopError, match="is not a run"):
        train(None, tmp_path / "x", resume=True)


def test_resuming_with_another_model(finished: Path, tmp_path: Path):
    """The config in the folder was changed by hand."""
    import shutil

    shutil.copytree(finished, tmp_path / "run")
    values = json.loads((tmp_path / "run" / "config.json").read_text())
    values["model"]["hidden"] = [5]
    (tmp_path / "run" / "config.json").write_text(json.dumps(values))
    with pytest.raises(InnerloopError, match="is of another model"):
        train(None, tmp_path / "run", resume=True)


def test_when_something_is_due():
    """A multiple of `every` reached or passed in the last `length` steps; 0: never."""
    assert [step for step in range(2, 21, 2) if due(5, step, 2)] == [6, 10, 16, 20]
    assert not any(due(0, step, 2) for step in range(2, 21, 2))


def test_a_second_signal_acts_at_once():
    asked_twice: list[int] = []

    def body() -> None:
        with asked_to_stop() as asked:
            os.kill(os.getpid(), signal.SIGINT)
            asked_twice.extend(asked)
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.1)

    with pytest.raises(KeyboardInterrupt):
        body()
    assert asked_twice == [signal.SIGINT]


def test_signals_outside_the_main_thread():
    """They are the caller's business: nothing is installed."""
    import threading

    seen: list[list[int]] = []

    def body() -> None:
        with asked_to_stop() as asked:
            seen.append(asked)

    before = signal.getsignal(signal.SIGTERM)
    thread = threading.Thread(target=body)
    thread.start()
    thread.join()
    assert seen == [[]]
    assert signal.getsignal(signal.SIGTERM) is before
