"""Interrupted anywhere and resumed, a run ends with the same bits as one that never was."""

import os
import signal
import time
from pathlib import Path

import numpy as np
import pytest
from callback_cases import EachBlock

from innerloop.config.schema import Config
from innerloop.engine.outer.mesh_loop import MeshLoop
from innerloop.training.interruption import signals
from innerloop.training.interruption.signals import Guard, Interrupted, Stopped, graceful_shutdown
from innerloop.training.progress.progress import Progress
from innerloop.training.storage import checkpoint_manager, weights
from innerloop.training.train import train


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


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signal_saves_state_and_run_resumes_bitwise(
    tiny: Config, finished: Path, tmp_path: Path, number: int
):
    """Stopped at step 6, which is no checkpoint of its own."""
    handler = signal.getsignal(number)
    with pytest.raises(Stopped, match="stopped at meta-step 6; state saved") as stopped:
        train(tiny, tmp_path / "run", callbacks=[EachBlock(stop_at(6, number))])
    assert (stopped.value.signal_number, stopped.value.step) == (number, 6)
    assert signal.getsignal(number) is handler
    assert checkpoint_manager.manager(tmp_path / "run" / "checkpoints").latest_step() == 6
    seen: list[Progress] = []
    result = train(None, tmp_path / "run", resume=True, callbacks=[EachBlock(seen.append)])
    assert result.facts["meta_steps"] == 12
    assert [progress.step for progress in seen] == [8, 10, 12]
    assert seen[-1].seconds_left == 0
    assert seen[-1].tasks_per_second > 0
    same_run(tmp_path / "run", finished)


def test_signal_at_last_step_lets_run_finish(tiny: Config, finished: Path, tmp_path: Path):
    train(tiny, tmp_path / "run", callbacks=[EachBlock(stop_at(12))])
    same_run(tmp_path / "run", finished)


def test_interrupt_during_compilation_leaves_no_folder(
    tiny: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """By another thread, as the main thread is stuck; what it would have left is looked at in its last moment."""
    guard, left = Guard(owns_process=True), []
    monkeypatch.setattr(signals, "OWN", [guard])
    monkeypatch.setattr(os, "_exit", lambda code: left.append((code, list(tmp_path.iterdir()))))

    def stuck(*given: object) -> None:
        guard.number = signal.SIGINT
        assert (tmp_path / "run" / "config.json").exists()
        guard.on_timeout(guard.phase)
        raise Interrupted(guard.number)

    monkeypatch.setattr(MeshLoop, "start", stuck)
    with pytest.raises(Interrupted):
        train(tiny, tmp_path / "run")
    assert left == [(130, [])]


def test_second_signal_interrupts_immediately():
    asked_twice: list[int] = []

    def body() -> None:
        with graceful_shutdown() as guard, guard.saving(None):
            os.kill(os.getpid(), signal.SIGINT)
            asked_twice.append(guard.number)
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.1)

    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a background job may ignore it
    try:
        with pytest.raises(KeyboardInterrupt):
            body()
    finally:
        signal.signal(signal.SIGINT, before)
    assert asked_twice == [signal.SIGINT]


def test_non_python_signal_handler_is_kept(monkeypatch: pytest.MonkeyPatch):
    """Python knows none, and cannot restore it."""
    known = signal.getsignal
    monkeypatch.setattr(
        signal, "getsignal", lambda number: None if number == signal.SIGTERM else known(number)
    )
    with graceful_shutdown() as guard:
        assert signal.SIGINT in guard.previous_handlers
        assert signal.SIGTERM not in guard.previous_handlers


def test_no_signal_handlers_outside_main_thread():
    """They are the caller's business: nothing is installed."""
    import threading

    seen: list[int] = []

    def body() -> None:
        with graceful_shutdown() as guard, guard.saving(None):
            seen.append(guard.number)

    before = signal.getsignal(signal.SIGTERM)
    thread = threading.Thread(target=body)
    thread.start()
    thread.join()
    assert seen == [0]
    assert signal.getsignal(signal.SIGTERM) is before
