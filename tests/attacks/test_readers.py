"""Files that somebody else has made, to be read: each is read right, or refused in one sentence, at once."""

import json
from pathlib import Path

import numpy as np
import pytest
from tests.attacks.hostile_files import KINDS, make

from innerloop.errors import InnerloopError
from innerloop.io.untrusted import open_regular, parse_json, read_bytes
from innerloop.training.storage.run_directory import RunFolder


@pytest.mark.parametrize("kind", [*KINDS, "socket"])
def test_open_regular_rejects_special_files(tmp_path: Path, kind: str, monkeypatch):
    monkeypatch.chdir(tmp_path)  # names of sockets are short
    with pytest.raises(InnerloopError, match="must be a regular file|larger than the bound|No such file"):
        open_regular(make(Path("x"), kind), 1 << 20)


def test_read_bytes_follows_symlinks_only_if_allowed(tmp_path: Path):
    (tmp_path / "x").write_bytes(b"abc")
    (tmp_path / "link").symlink_to("x")
    assert read_bytes(tmp_path / "link", 3) == b"abc"
    with pytest.raises(InnerloopError, match="got a symbolic link"):
        read_bytes(tmp_path / "link", 3, follow=False)
    with pytest.raises(InnerloopError, match="larger than the bound of 2 bytes"):
        read_bytes(tmp_path / "x", 2)
    with pytest.raises(InnerloopError, match="is not a valid file name"):
        read_bytes(tmp_path / "x\0", 2)


@pytest.mark.parametrize("text", ["NaN", "-Infinity", "1e400", "1" + "0" * 400, '{"a": [1e400]}'])
def test_parse_json_rejects_non_finite_numbers(text: str):
    with pytest.raises(InnerloopError, match="not finite"):
        parse_json(text, "x")


@pytest.mark.parametrize("kind", [*KINDS, "inside"])
@pytest.mark.parametrize("name", ["clock.json", "environment.json", "metrics.jsonl"])
def test_non_regular_run_files_are_rejected(tmp_path: Path, name: str, kind: str):
    run = RunFolder(tmp_path)
    if kind == "inside":
        (tmp_path / "other").write_text('{"step": 1, "seconds": 1}\n')
        (tmp_path / name).symlink_to("other")
    else:
        make(tmp_path / name, kind)
    read = {"clock.json": run.seconds, "environment.json": run.known, "metrics.jsonl": run.metrics}[name]
    with pytest.raises(InnerloopError, match="regular file|larger than the bound"):
        read()


def test_metrics_accept_null_but_reject_invalid_numbers(tmp_path: Path):
    run = RunFolder(tmp_path)
    run.log({"step": 1, "validation_loss": float("nan")})
    assert json.loads((tmp_path / "metrics.jsonl").read_text()) == {"step": 1, "validation_loss": None}
    assert np.isnan(run.metrics()[0]["validation_loss"])
    run.rewind(1)
    assert np.isnan(run.metrics()[0]["validation_loss"])
    for line in ('{"step": 1, "x": 1%s}', '{"step": 1%s}', '{"step": -1}', '{"step": 1, "x": "%s"}'):
        (tmp_path / "metrics.jsonl").write_text((line % ("0" * 400) if "%" in line else line) + "\n")
        with pytest.raises(InnerloopError, match="must hold only numbers|must be an object with a step"):
            run.metrics()
