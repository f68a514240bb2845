"""`train --seeds --at-once`: processes that start, save and end together."""

import io
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from rich.console import Console

import innerloop
from innerloop.cli import at_once as at_once_module
from innerloop.cli import distributed
from innerloop.cli.at_once import ParallelRunner
from innerloop.cli.seeds import Job
from innerloop.config.schema import Config
from innerloop.errors import InnerloopError
from innerloop.training.interruption.signal_listener import NUMBERS


@pytest.fixture
def together(tmp_path, monkeypatch):
    """Runs jobs whose processes run this code instead of a training; the exit code, and what was printed."""

    def run(code: str, count: int, at_once: int) -> tuple[int, str]:
        monkeypatch.setattr(at_once_module, "COMMAND", (sys.executable, "-c", code))
        out = io.StringIO()
        jobs = [Job(tmp_path / f"seed-{i}", Config()) for i in range(count)]
        kept = {number: signal.getsignal(number) for number in NUMBERS}
        try:
            return ParallelRunner(jobs, at_once, None, Console(file=out, width=300)).run(), out.getvalue()
        finally:
            for number, handler in kept.items():
                signal.signal(number, handler)

    return run


def test_failure_stops_running_and_pending_jobs(together):
    code = (
        "import json, sys, time\n"
        "number = json.load(sys.stdin)['folder'][-1]\n"
        "print('cannot go on', flush=True) if number == '1' else time.sleep(60)\n"
        "sys.exit(3)"
    )
    began = time.monotonic()
    ended, out = together(code, 3, 2)
    assert ended == 3
    assert "seed-1: exited with code 3: cannot go on" in out
    assert "seed-0: exited with code 143" in out
    assert "seed-2" not in out
    assert time.monotonic() - began < 30


def test_signal_is_forwarded_to_children(together):
    code = (
        "import os, signal, sys, time; sys.stdin.read(); os.kill(os.getppid(), signal.SIGINT); time.sleep(60)"
    )
    ended, out = together(code, 3, 1)
    assert ended == 130
    assert "seed-0: exited with code 130" in out
    assert "seed-1" not in out


SAVES = (
    "import json, signal, sys, time\n"
    "def save(number, frame): time.sleep(wait); print('saved', flush=True); sys.exit(128 + number)\n"
    "signal.signal(signal.SIGINT, save)\n"
    "signal.signal(signal.SIGTERM, save if lenient else lambda *_: sys.exit('not saved'))\n"
    "print('ready', flush=True); time.sleep(60)"
)


def test_interrupt_lets_all_children_save(together, tmp_path):
    """One that ends early is no reason to press the others."""
    order = "import json, sys; wait, lenient = int(json.load(sys.stdin)['folder'][-1]), False\n"
    outputs = [tmp_path / f"output-seed-{i}.txt" for i in range(2)]

    def interrupt() -> None:
        while not all(path.exists() and "ready" in path.read_text() for path in outputs):
            time.sleep(0.05)
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=interrupt, daemon=True).start()
    assert together(order + SAVES, 2, 2)[0] == 130
    assert [path.read_text() for path in outputs] == ["ready\nsaved\n"] * 2


def test_signal_during_start_reaches_child(together, tmp_path, monkeypatch):
    popen = subprocess.Popen

    def interrupted(*args, **settings):
        process = popen(*args, **settings)
        while "ready" not in (tmp_path / "output-seed-0.txt").read_text():
            time.sleep(0.05)
        signal.raise_signal(signal.SIGINT)
        return process

    monkeypatch.setattr(at_once_module.subprocess, "Popen", interrupted)
    assert together("wait, lenient = 0, False\n" + SAVES, 2, 1)[0] == 130
    assert (tmp_path / "output-seed-0.txt").read_text() == "ready\nsaved\n"


def test_parent_error_lets_children_save(together, tmp_path, monkeypatch):
    def fails(self: ParallelRunner) -> None:
        if "ready" in (tmp_path / "output-seed-0.txt").read_text():
            raise RuntimeError("of this process")

    monkeypatch.setattr(ParallelRunner, "print_progress", fails)
    monkeypatch.setattr(at_once_module, "PROGRESS_EVERY", 0.0)
    with pytest.raises(RuntimeError, match="of this process"):
        together("wait, lenient = 0, True\n" + SAVES, 1, 1)
    assert (tmp_path / "output-seed-0.txt").read_text() == "ready\nsaved\n"


def test_ignored_sighup_stays_ignored(together):
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        code = "import os, signal, sys; sys.stdin.read(); os.kill(os.getppid(), signal.SIGHUP)"
        assert together(code, 1, 1)[0] == 0
    finally:
        signal.signal(signal.SIGHUP, before)


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="this system has no affinity")
def test_children_share_cores_and_memory(together, tmp_path):
    code = (
        "import os, sys, time; sys.stdin.read(); time.sleep(0.3)\n"
        "print(sorted(os.sched_getaffinity(0)), os.environ['XLA_PYTHON_CLIENT_MEM_FRACTION'])"
    )
    assert together(code, 2, 2)[0] == 0
    cores = sorted(os.sched_getaffinity(0))
    half = len(cores) // 2
    shares = [cores[i * half : (i + 1) * half] if half else cores for i in range(2)]
    printed = [(tmp_path / f"output-seed-{i}.txt").read_text() for i in range(2)]
    assert printed == [f"{share} 0.45\n" for share in shares]


def test_memory_fraction_stays_positive_for_many_jobs():
    fraction = ParallelRunner([], 1000, None, Console()).environment()["XLA_PYTHON_CLIENT_MEM_FRACTION"]
    assert 0 < float(fraction) < 1 / 1000


def test_children_ignore_modules_in_working_directory(tmp_path):
    (tmp_path / "rich.py").write_text("raise RuntimeError('not the package')")
    for command in ([*at_once_module.COMMAND[:-1], "import rich"], [*distributed.COMMAND, "--help"]):
        here = os.environ | {"PYTHONPATH": str(Path(innerloop.__file__).parents[1])}
        done = subprocess.run(command, cwd=tmp_path, env=here, capture_output=True, text=True)
        assert (done.returncode, done.stderr) == (0, "")


def test_children_import_same_package_as_parent(tmp_path, monkeypatch):
    """And where it is installed nothing comes before Python's own library."""
    monkeypatch.setenv("PYTHONPATH", "others")
    for home, found in (("src", f"{tmp_path / 'src'}{os.pathsep}others"), ("site-packages", "others")):
        file = tmp_path / home / "innerloop" / "cli" / "distributed.py"
        monkeypatch.setattr(distributed, "__file__", str(file))
        assert distributed.same_package()["PYTHONPATH"] == found


def test_earlier_output_is_not_repeated(together, tmp_path):
    (tmp_path / "output-seed-0.txt").write_text("what was said before\n")
    ended, out = together("import sys; sys.stdin.read(); sys.exit(9)", 1, 1)
    assert ended == 9
    assert "seed-0: exited with code 9: \n" in out
    assert (tmp_path / "output-seed-0.txt").read_text() == "what was said before\n"


def test_process_start_failure_is_reported(together, monkeypatch):
    def none(*words, **settings):
        raise BlockingIOError(11, "Resource temporarily unavailable")

    monkeypatch.setattr(at_once_module.subprocess, "Popen", none)
    with pytest.raises(
        InnerloopError, match="--at-once: a process cannot be started .*; train fewer at once"
    ):
        together("", 1, 1)
