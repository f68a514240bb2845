"""A console that cannot be written ends a training only after it was saved."""

import errno
import io
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from callback_cases import EachBlock

from innerloop import cli
from innerloop.cli import progress
from innerloop.cli.train import train_into
from innerloop.config.schema import Config
from innerloop.errors import InnerloopError
from innerloop.training.progress.progress import Progress
from innerloop.training.storage import checkpoint_manager
from innerloop.training.storage.checkpoint_manager import Manager
from innerloop.training.storage.run_directory import RunFolder
from innerloop.training.train import train


def saved(folder: Path) -> list[int]:
    return sorted(checkpoint_manager.manager(folder / "checkpoints").all_steps())


@pytest.mark.parametrize("error", [BrokenPipeError(errno.EPIPE, "closed"), SystemExit(3), KeyError("mine")])
def test_run_is_saved_when_callback_raises(
    short: Config, same_run: Callable, tmp_path: Path, error: BaseException
):
    def watch(progress: Progress) -> None:
        if progress.step == 6:
            raise error

    with pytest.raises(type(error)):
        train(short, tmp_path / "run", callbacks=[EachBlock(watch)])
    assert saved(tmp_path / "run") == [6]
    train(None, tmp_path / "run", resume=True)
    same_run(tmp_path / "run")


def test_unwritable_metrics_keep_previous_checkpoint(
    short: Config, same_run: Callable, tmp_path: Path, monkeypatch
):
    """The checkpoint is the one before the line that is missing."""
    log = RunFolder.log

    def full(self: RunFolder, record: dict) -> None:
        if record["step"] == 8:
            raise InnerloopError("metrics.jsonl", "cannot be written (No space left on device)")
        log(self, record)

    monkeypatch.setattr(RunFolder, "log", full)
    with pytest.raises(InnerloopError, match="No space left"):
        train(short, tmp_path / "run")
    monkeypatch.setattr(RunFolder, "log", log)
    assert saved(tmp_path / "run") == [6]
    train(None, tmp_path / "run", resume=True)
    same_run(tmp_path / "run")


class Full(io.StringIO):
    """A log file on a disk that is full once training has begun."""

    def __init__(self, number: int):
        super().__init__()
        self.number = number

    def write(self, text: str) -> int:
        if "outer loss" in text:
            raise OSError(self.number, "No space left on device")
        return super().write(text)


@pytest.mark.parametrize(("number", "code"), [(errno.ENOSPC, 2), (errno.EPIPE, 141)])
def test_unwritable_stdout_gives_correct_exit_code(short, tmp_path, monkeypatch, capsys, number, code):
    monkeypatch.setattr(cli, "dispatch", lambda argv: train_into(tmp_path / "run", short))
    monkeypatch.setattr(progress, "EVERY", 0.0)
    monkeypatch.setattr(sys, "stdout", Full(number))
    assert cli.main(["train"]) == code
    assert saved(tmp_path / "run") == [2]
    told = "innerloop: standard output: cannot be written (No space left on device); check the disk or terminal.\n"
    assert capsys.readouterr().err == (told if code == 2 else "")


LIST = f"{sys.executable} -m innerloop list"


@pytest.mark.parametrize(
    ("command", "code", "said"),
    [
        (f"{LIST} > /dev/full", 2, "standard output: cannot be written"),
        (f"{LIST} nonsense 2> /dev/full", 2, ""),
        (f"{LIST} >&- 2>&-", 0, ""),
        (f"{LIST} | true; exit ${{PIPESTATUS[0]}}", 141, ""),
    ],
)
def test_full_or_closed_streams_give_no_traceback(command, code, said):
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True)
    assert done.returncode == code
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_unencodable_characters_are_escaped(process):
    latin = os.environ | {"PYTHONIOENCODING": "latin-1"}
    body = """
from innerloop.cli import streams
print("ready", flush=True)
with streams.prepared():  # as `main` does
    print("θ")
return 0
"""
    started = process(body, env=latin)
    assert started.stdout.read() == "\\u03b8\n"
    assert started.communicate()[1] == ""


def test_checkpoint_is_retried_after_clock_change(
    short: Config, same_run: Callable, tmp_path: Path, monkeypatch
):
    """Orbax gives up as if an hour had passed; the checkpoint is written again."""
    own, failed = Manager.wait_until_finished, []

    def wait(self: Manager) -> None:
        own(self)
        step = self.under_way[0] if self.under_way else -1
        if step in self.all_steps() and not failed:
            failed.append(step)
            self.delete(step)
            raise TimeoutError("timed out after 3600 seconds")

    monkeypatch.setattr(Manager, "wait_until_finished", wait)
    short = replace(short, outer=replace(short.outer, checkpoint_every=12))
    train(short, tmp_path / "run")
    assert failed == saved(tmp_path / "run") == [12]
    same_run(tmp_path / "run")
