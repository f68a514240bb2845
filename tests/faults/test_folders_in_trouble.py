"""Full disks, folders that cannot be written, and two trainings on one folder."""

import os
import resource
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from callback_cases import EachBlock

from innerloop import cli
from innerloop.cli.train import train_into
from innerloop.config.schema import Config, ModelConfig
from innerloop.errors import InnerloopError
from innerloop.io.folders import OwnFolder
from innerloop.training.progress.progress import Progress
from innerloop.training.storage import weights
from innerloop.training.storage.lock import Busy, exclusive_lock
from innerloop.training.train import train


@pytest.mark.usefixtures("no_compilation_cache")  # else its files are cut short too
def test_full_disk_keeps_previous_checkpoint(short: Config, tmp_path: Path, survived):
    """No file may grow beyond 10 kB after step 6: the checkpoint of step 8 fails, that of step 4 stays and is used."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    config = replace(short, model=ModelConfig(kind="mlp", hidden=(64, 64)))
    config = replace(config, outer=replace(short.outer, snapshots=0))

    def fill(progress: Progress) -> None:
        if progress.step == 6:
            while not (tmp_path / "run" / "checkpoints" / "4").exists():  # it is written in the background
                time.sleep(0.01)
            resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, before[1]))

    try:
        with pytest.raises(
            InnerloopError, match=r"cannot be written \(File too large\).*meta-step 4; free some room"
        ):
            train(config, tmp_path / "run", callbacks=[EachBlock(fill)])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert [
        path.name for path in (tmp_path / "run" / "checkpoints").glob("[0-9]*") if path.name.isdigit()
    ] == ["4"]
    seen: list[int] = []
    train(
        None,
        tmp_path / "run",
        resume=True,
        callbacks=[EachBlock(lambda progress: seen.append(progress.step))],
    )
    assert seen == [6, 8, 10, 12]
    survived(
        "disk full while a checkpoint is written",
        1,
        "reported in one sentence; resumed once there was room",
        "one checkpoint interval",
    )


def test_full_disk_keeps_previous_weights(tmp_path: Path, survived):
    """What was there stays, and nothing half-written lies beside it."""
    path, before = tmp_path / "w.safetensors", resource.getrlimit(resource.RLIMIT_FSIZE)
    weights.save(path, {"x": np.zeros(2, np.float32)}, Config(), {})
    kept = path.read_bytes()
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
    try:
        with pytest.raises(InnerloopError, match="w.safetensors: cannot be written .*; free some room"):
            weights.save(path, {"x": np.zeros(2000, np.float32)}, Config(), {})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert path.read_bytes() == kept
    assert [p.name for p in tmp_path.iterdir()] == ["w.safetensors"]
    survived("disk full while weights are written", 1, "reported; the previous file stays", "nothing")


def test_insufficient_disk_space_raises_before_checkpoint(
    short: Config, tmp_path: Path, monkeypatch, survived
):
    usage = type("usage", (), {"free": 100})
    monkeypatch.setattr("shutil.disk_usage", lambda path: usage)
    with pytest.raises(InnerloopError, match="does not fit on the disk, got 100 bytes free; free some room"):
        train(short, tmp_path / "run")
    assert not list((tmp_path / "run" / "checkpoints").iterdir())
    survived("no room for a checkpoint", 1, "reported before it starts, nothing half-written", "nothing")


READ_ONLY = """
import os, sys
from innerloop.errors import InnerloopError
from innerloop.training.experiments.build import build
from innerloop.training.memory.memory_plan import memory_plan
from innerloop.training.storage.run_directory import RunFolder
from innerloop.training.train import train
memory_plan(build(RunFolder(sys.argv[1]).config()))  # all is imported while it can be read
if os.getuid() == 0:
    os.setuid(65534)
try:
    train(None, sys.argv[1], resume=True)
except InnerloopError as error:
    sys.exit(str(error))
"""


def test_read_only_run_folder_is_left_unchanged(finished: Path, survived):
    """By a process without rights on it; root has them all, so it gives them up first."""
    import shutil

    with tempfile.TemporaryDirectory() as place:
        run = Path(place) / "run"
        shutil.copytree(finished, run)
        os.chmod(place, 0o755)
        os.chmod(run, 0o555)
        kept = sorted(path.name for path in run.iterdir())
        words = [sys.executable, "-c", READ_ONLY, str(run)]
        # Coverage would want to write its data where this process may not.
        env = {name: value for name, value in os.environ.items() if not name.startswith("COV")}
        done = subprocess.run(words, capture_output=True, text=True, check=False, cwd="/", env=env)
        assert "Traceback" not in done.stderr
        assert f"{run}: cannot be written (Permission denied); give write access" in done.stderr
        assert sorted(path.name for path in run.iterdir()) == kept
        os.chmod(run, 0o755)
    survived("read-only run folder", 1, "refused in one sentence, nothing changed", "nothing")


HOLD = """
import sys, time
from innerloop.io.folders import OwnFolder
from innerloop.training.storage.lock import exclusive_lock
with exclusive_lock(OwnFolder(sys.argv[1])):
    print("held", flush=True)
    time.sleep(600)
"""


def test_second_training_on_locked_folder_raises(short: Config, tmp_path: Path, survived):
    """The second refuses and touches nothing; when the first is killed, the folder is free at once."""
    folder = tmp_path / "run"
    folder.mkdir()
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(folder)], stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(
            Busy, match=f"another training run is using it, got process {holder.pid} on .*; wait until"
        ):
            train(short, folder)
        with pytest.raises(Busy):
            train_into(folder, short)
        assert [path.name for path in folder.iterdir()] == ["lock"]
        holder.send_signal(signal.SIGKILL)
        holder.wait()
    with exclusive_lock(OwnFolder(folder)), pytest.raises(Busy), exclusive_lock(OwnFolder(folder)):
        pass
    survived(
        "two trainings on one run folder", 2, "the second refuses; free once the first is killed", "nothing"
    )


def test_train_command_keeps_folder_of_another_training(short: Config, tmp_path: Path, monkeypatch):
    """The other one made the folder after this one had looked."""
    made_meanwhile = tmp_path / "run"

    def busy(*arguments: object, **more: object) -> None:
        made_meanwhile.mkdir()
        raise Busy("run", "another training run is using it")

    monkeypatch.setattr(sys.modules["innerloop.training.train"], "train", busy)
    with pytest.raises(Busy):
        train_into(made_meanwhile, short)
    assert made_meanwhile.is_dir()
    assert cli.fail("x", 2) == 2
