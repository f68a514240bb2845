import json
import shutil
import signal

import pytest

from innerloop.cli import progress
from innerloop.training.storage.run_directory import RunFolder


def test_reproduce_confirms_same_run_and_detects_changes(command, sinusoid_run, tmp_path):
    code, out, _ = command("reproduce", sinusoid_run, "--folder", tmp_path / "again")
    assert code == 0
    assert "Reproduced: the same bits" in out
    again = RunFolder(tmp_path / "again")
    lines = again.path.joinpath("metrics.jsonl").read_text()
    again.path.joinpath("metrics.jsonl").write_text(lines.replace('"step": 100', '"step": 101'))
    code, out, err = command("reproduce", again.path, "--json")
    verdict = json.loads(out)
    assert code == 1
    assert (verdict["same"], verdict["weights"], verdict["metrics"]) == (False, 0, 100)
    assert "200/200" in err


@pytest.fixture
def copy(sinusoid_run, tmp_path):
    return shutil.copytree(sinusoid_run, tmp_path / "copy")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"\xff\xfe", "environment.json: is not UTF-8 text"),
        (b"x", "environment.json: is not JSON"),
        (b"[]", "environment.json: must hold one JSON object"),
        (b'{"python": "3.11"}', "does not name the devices; restore the file, or give --devices"),
        (b'{"devices": []}', "does not name the devices"),
    ],
)
def test_damaged_environment_gives_one_line_error(complaint, copy, content, words):
    (copy / "environment.json").write_bytes(content)
    assert words in complaint("reproduce", copy)


def test_damaged_environment_fails_before_training(command, copy, tmp_path):
    """Though the devices are given, and it is not needed until the two are compared."""
    (copy / "environment.json").write_text("x")
    code, _, err = command("reproduce", copy, "--devices", 2, "--folder", tmp_path / "again")
    assert (code, err.count("\n")) == (2, 1)
    assert "environment.json: is not JSON" in err
    assert not (tmp_path / "again").exists()


def test_reproduce_rejects_invalid_folders(complaint, command, tmp_path, sinusoid_run):
    """No run; and a run in the folder of the new one, with what can be done in words of commands that there are."""
    assert "is not a run" in complaint("reproduce", tmp_path)
    code, _, err = command("reproduce", sinusoid_run, "--folder", sinusoid_run)
    assert code == 2
    assert f"give another folder, or continue it with `innerloop train --resume {sinusoid_run}`" in err


def test_interrupted_reproduce_gives_no_verdict(command, sinusoid_run, monkeypatch):
    monkeypatch.setattr(progress, "EVERY", 0.0)
    monkeypatch.setattr(progress, "in_words", lambda metrics: signal.raise_signal(signal.SIGINT) or "")
    code, out, err = command("reproduce", sinusoid_run)
    assert (code, err) == (130, "")
    assert "Stopped at meta-step 100; nothing was compared." in out
