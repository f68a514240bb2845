"""What a run was made with is compared when it goes on."""

import json
import os
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from benchmarks.scaling import launch
from callback_cases import EachBlock

from innerloop.config.schema import Config
from innerloop.config.serialization import to_json
from innerloop.errors import InnerloopError
from innerloop.io.digests import sha256
from innerloop.parallel import multi_process
from innerloop.tasks import fingerprint
from innerloop.training.interruption.signals import Stopped
from innerloop.training.storage import provenance
from innerloop.training.storage.run_directory import RunFolder
from innerloop.training.train import settings, train


@pytest.fixture
def run(finished: Path, tmp_path: Path) -> Path:
    """An ended run whose weights are lost."""
    shutil.copytree(finished, tmp_path / "run")
    (tmp_path / "run" / "weights.safetensors").unlink()
    return tmp_path / "run"


def test_checkpoints_of_another_run_are_refused(short: Config, run: Path):
    """Beside a new run, and beside a config that was changed by hand."""
    other = replace(short, algorithm="fomaml", seed=3)
    (run / "config.json").unlink()
    with pytest.raises(InnerloopError, match="which this run did not write"):
        train(other, run)
    (run / "config.json").write_text(to_json(other))
    with pytest.raises(InnerloopError, match="belongs to a run with other settings or data"):
        train(None, run, resume=True)
    assert not (run / "weights.safetensors").exists()


def test_settings_changed_by_hand_are_refused(run: Path):
    text = (run / "config.json").read_text().replace('"seed": 0', '"seed": 1')
    assert '"seed": 1' in text
    (run / "config.json").write_text(text)
    with pytest.raises(InnerloopError, match="other settings or data"):
        train(None, run, resume=True)


def test_resume_names_changed_data_split(short: Config, tmp_path: Path, monkeypatch):
    hashes = {"train": "a", "validation": "b", "test": "c"}
    monkeypatch.setattr(fingerprint, "data_hashes", lambda splits: hashes)
    stop = lambda progress: os.kill(os.getpid(), 15) if progress.step == 2 else None
    with pytest.raises(Stopped):
        train(short, tmp_path / "run", callbacks=[EachBlock(stop)])
    hashes = hashes | {"test": "d"}
    with pytest.raises(InnerloopError, match="resume: the test set of the data changed"):
        train(None, tmp_path / "run", resume=True)
    (tmp_path / "run" / "environment.json").unlink()  # the checkpoint knows all the same
    with pytest.raises(InnerloopError, match="other settings or data"):
        train(None, tmp_path / "run", resume=True)


def test_environment_changes_are_reported_and_recorded(run: Path):
    known = json.loads((run / "environment.json").read_text())
    known["devices"], known["packages"]["jax"] = ["TFRT_CPU_0"], "0.0.1"
    (run / "environment.json").write_text(json.dumps(known))
    with pytest.warns(UserWarning, match=r"devices: then 1 TFRT_CPU, now 2 .*packages.jax: then 0.0.1, now"):
        train(None, run, resume=True)
    (entry,) = RunFolder(run).known()["resumed"]
    assert entry["meta_step"] == 12
    assert sorted(entry["changed"]) == ["devices", "packages.jax"]


@pytest.mark.parametrize("odd", [{"data": [1], "devices": 3, "flags": None, "resumed": "x"}, {}])
def test_resume_tolerates_malformed_environment(run: Path, odd: dict):
    known = json.loads((run / "environment.json").read_text()) | odd
    (run / "environment.json").write_text(json.dumps(known if odd else {}))
    if odd:
        with pytest.warns(UserWarning, match="in another environment"):
            train(None, run, resume=True)
    else:
        train(None, run, resume=True)
    assert (run / "weights.safetensors").exists()


def test_run_identity_ignores_data_location():
    here = '{"data": {"folder": "/a", "file": "/c.csv", "ways": 5}, "seed": 0}'
    assert provenance.identity(here, {}) == provenance.identity(here.replace("/a", "/b"), {})
    assert provenance.identity(here, {}) == provenance.identity(here.replace("/c.csv", "/d.csv"), {})
    assert provenance.identity(here, {}) == provenance.identity(here.replace("/c.csv", ""), {})
    assert provenance.identity(here, {}) != provenance.identity(here.replace("5", "6"), {})
    assert provenance.identity(here, {}) != provenance.identity(here, {"train": "x"})


def test_run_identity_includes_empty_table_path():
    """As in the checkpoints that earlier versions wrote."""
    settings = {"data": {"file": "", "ways": 5}, "seed": 0}
    expected = sha256([json.dumps([settings, {}], sort_keys=True).encode()])
    assert provenance.identity(json.dumps(settings), {}) == expected


def test_different_config_across_processes_is_rejected(monkeypatch):
    """From Python; a process without a config takes the first one's."""
    monkeypatch.setattr(multi_process, "from_first", lambda data: b"0" * 32)
    monkeypatch.setattr(multi_process, "all_gather_bytes", lambda data: [b"0" * 32, data])
    with pytest.raises(InnerloopError, match="process 1: has different settings from the primary process"):
        settings(Config(name="mine"))


@pytest.mark.slow
def test_different_seed_across_processes_is_rejected(tmp_path: Path):
    port, words = launch.free_port(), ["sinusoid-maml", "--folder", str(tmp_path / "run"), "--devices", "1"]
    command = [sys.executable, "-m", "innerloop", "train", *words]
    seeds = (["--seed", "0"], ["--seed", "3"])
    both = [launch.Process([*command, *own, *launch.meeting(2, i, port, 20)]) for i, own in enumerate(seeds)]
    codes, told = zip(*launch.end(both), strict=True)
    assert codes == (2, 2), told
    assert all(
        "process 1: has different settings on its command line from the primary process" in text
        for text in told
    )
    assert not (tmp_path / "run").exists()
