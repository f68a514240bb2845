"""SIGINT, SIGTERM and SIGHUP at any time: the first one is seen and saves, a second one ends the process at once."""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from benchmarks.scaling.launch import Process
from tests.compilation import quick_variables

from innerloop.config.schema import Config
from innerloop.engine.meta_state import MetaState
from innerloop.engine.outer.mesh_loop import MeshLoop
from innerloop.training.interruption import signals
from innerloop.training.interruption.signals import Stopped
from innerloop.training.storage import checkpoint_manager
from innerloop.training.storage.run_directory import RunFolder
from innerloop.training.train import train

BLOCKED = "lock = ctypes.create_string_buffer(64); [ctypes.CDLL(None).pthread_mutex_lock(lock) for _ in 'ab']"
"""As XLA does: a call that no signal ends, in which Python runs no handler."""

SLOW = (
    "sinusoid-maml --model.hidden 4 --outer.meta-batch 2 --outer.meta-steps 2000000 --outer.log-every 1000000"
)


@pytest.fixture(autouse=True)
def hangups_are_not_ignored():
    """Processes inherit that they are, as under `nohup`."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


def ended(started: subprocess.Popen[str], *numbers: int, pause: float = 0.5) -> tuple[int, str, float]:
    """Exit code, what was said on standard error, and the seconds since the first of these signals."""
    time.sleep(0.2)  # it has just printed a line
    begun = time.monotonic()
    for number in numbers:
        started.send_signal(number)
        if number is not numbers[-1]:
            time.sleep(pause)
    said = started.communicate(timeout=60)[1]
    return started.returncode, said, time.monotonic() - begun


@pytest.mark.slow
def test_sighup_interrupts_long_block_and_saves(tmp_path: Path):
    words = [sys.executable, "-m", "innerloop", "train", *SLOW.split(), "--folder", str(tmp_path / "run")]
    with Process(words, env=os.environ | quick_variables()) as process:
        while not list((tmp_path / "run" / "tensorboard").glob("*")) and process.poll() is None:
            time.sleep(0.05)
        time.sleep(1)
        begun = time.monotonic()
        process.send_signal(signal.SIGHUP)
        said = process.told()
    assert process.returncode == 128 + signal.SIGHUP, said
    assert time.monotonic() - begun < 15  # the block alone would take minutes
    stopped = re.search(r"Stopped at meta-step (\d+); everything is saved", said)
    assert stopped is not None, said
    assert "Traceback" not in said
    assert (tmp_path / "run" / "checkpoints" / stopped[1]).is_dir()


def test_resume_after_abandoned_block_is_bit_identical(
    short: Config, same_run: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """From Python: saved while the block goes on, and raised when it ends."""
    folder, blocks, own = tmp_path / "run", [], MeshLoop.run

    def third_is_slow(self: MeshLoop, state: MetaState, length: int, **settings: Any):
        blocks.append(length)
        if len(blocks) == 3:
            os.kill(os.getpid(), signal.SIGTERM)
            deadline = time.monotonic() + 60
            while not (folder / "clock.json").exists() and time.monotonic() < deadline:
                time.sleep(0.05)
        return own(self, state, length, **settings)

    monkeypatch.setattr(MeshLoop, "run", third_is_slow)
    monkeypatch.setattr(signals, "GRACE_SECONDS", 0.1)
    with pytest.raises(Stopped, match="stopped at meta-step 4"):
        train(short, folder)
    assert RunFolder(folder).metrics()[-1]["step"] == 4
    assert checkpoint_manager.manager(folder / "checkpoints").all_steps() == [4]
    train(None, folder, resume=True)
    same_run(folder)


def test_swallowed_signal_still_ends_process(process):
    """As one is that comes within a callback of the garbage collection."""
    body = """
print("ready", flush=True)
try:
    time.sleep(60)
except KeyboardInterrupt:
    pass
time.sleep({seconds})
return 0
"""
    code, said, seconds = ended(process(body.format(seconds=60)), signal.SIGINT)
    assert (code, said) == (130, "innerloop: interrupted.\n")
    assert seconds < 5
    assert ended(process(body.format(seconds=0)), signal.SIGTERM)[0] == 143


def test_signal_ends_blocked_native_call(process):
    code, said, seconds = ended(process('print("ready", flush=True)\n' + BLOCKED), signal.SIGINT)
    assert (code, said) == (130, "innerloop: interrupted.\n")
    assert seconds < 5


def test_signal_during_import_ends_process_cleanly(process, tmp_path: Path):
    """An exception in the middle of an extension's start comes out as another one, or aborts the process."""
    (tmp_path / "slow_module.py").write_text('print("ready", flush=True)\nimport time\ntime.sleep(60)\n')
    body = f"sys.path.insert(0, {str(tmp_path)!r})\nimport slow_module"
    code, said, seconds = ended(process(body), signal.SIGINT)
    assert (code, said) == (130, "innerloop: interrupted.\n")
    assert seconds < 2


SAVING = """
with signals.OWN[0].saving(None):
    print("ready", flush=True)
    {wait}
"""


def test_second_signal_exits_immediately(process):
    started = process(SAVING.format(wait=BLOCKED))
    code, said, seconds = ended(started, signal.SIGTERM, signal.SIGINT)
    assert (code, said) == (130, "")
    assert seconds < 2


def test_duplicate_signals_count_once(process):
    came = "while not signals.OWN[0].number:\n        time.sleep(0.1)\n"
    wait = f"{came}    time.sleep(2)\n    return 128 + signals.OWN[0].number"
    assert ended(process(SAVING.format(wait=wait)), signal.SIGINT, signal.SIGINT, pause=0.05)[0] == 130
    code, said, seconds = ended(process(SAVING.format(wait=wait)), signal.SIGHUP, signal.SIGHUP, pause=0.2)
    assert (code, said) == (129, "")
    assert seconds > 1


def test_nohup_is_respected(process):
    body = 'print("ready", flush=True)\ntime.sleep(1)\nreturn 0'
    assert ended(process(body, before=("nohup",)), signal.SIGHUP)[0] == 0


def test_leftover_threads_do_not_block_exit_after_error(process):
    """Threads of Orbax and XLA that found no memory or no file handle never end."""
    body = 'threading.Thread(target=time.sleep, args=(60,)).start()\nprint("ready", flush=True)\n'
    for end, code in (("return 2", 2), ("raise KeyError", 1)):
        found, _, seconds = ended(process(body + end))
        assert found == code
        assert seconds < 10
