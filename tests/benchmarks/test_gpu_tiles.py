"""Tiles of the Pallas kernels: the fastest right one is chosen and kept, and the docs show what was measured."""

import json
import sys
import time
from pathlib import Path

import pytest
from benchmarks.gpu import counts, tiles
from benchmarks.gpu.tiles_worker import Worker
from benchmarks.speed.page import PAGE

from innerloop.nn.kernels.pallas_tiles import MEASURED, Tiles

KEY = "conv float32 deep-wide"


def found(*times: float | None) -> list[dict]:
    """Candidates with these seconds, told apart by their warps; the first one is by patches."""
    made = [{"key": KEY, "tiles": {"warps": i} if i else None, "seconds": t} for i, t in enumerate(times)]
    return [one for one in made if one["seconds"] is not None]


def test_best_tiles_are_the_fastest_correct_ones():
    wrong = float("inf")
    assert tiles.best(found(5e-3, wrong, 3e-3, 2e-3)) == {
        KEY: {"us": 2000.0, "tiles": {"warps": 3}, "patches_us": 5000.0}
    }
    assert tiles.best(found(None, 3e-3)) == {KEY: {"us": 3000.0, "tiles": {"warps": 1}}}
    assert tiles.best(found(None, wrong)) == {}


def test_write_updates_measured_tiles_and_keeps_the_rest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """What was measured replaces what was known, and what was not stays."""
    known, page = tmp_path / "known.json", tmp_path / "page.md"
    known.write_text(json.dumps({KEY: {"warps": 8}, "conv tf32 deep-wide": {"warps": 2}}))
    page.write_text("<!-- gpu-tiles:begin -->\n<!-- gpu-tiles:end -->\n")
    for name, path in (("MEASURED", known), ("FOLDER", tmp_path), ("PAGE", page)):
        monkeypatch.setattr(tiles, name, path)
    tiles.write({"device": "Fast 1", "jax": "9"}, tiles.best(found(5e-3, 2e-3)))
    assert json.loads(known.read_text()) == {KEY: {"warps": 1}, "conv tf32 deep-wide": {"warps": 2}}
    assert json.loads((tmp_path / "tiles-fast-1.json").read_text())["maps"][KEY]["us"] == 2000.0
    assert (
        "| conv | float32 | 32 x 75, 14 x 14, 64 to 64, stride 2 | 5000 | 2000 | **2.5** |"
        in page.read_text()
    )


def test_worker_times_only_correct_kernels():
    job = {"key": "conv float32 flat-wide", "tiles": vars(Tiles(rows=32))}
    worker = Worker()
    broken = {**job, "tiles": {"columns": 1}}
    failed = worker.compile([job, {**job, "tiles": None}, broken], seconds=60.0, dry=True)["failed"]
    assert [json.loads(name) for name in failed] == [broken]
    assert all(0 < one["seconds"] < 1 for one in worker.times()["found"])
    program, arguments, expected = worker.ready[0][1][0]
    worker.ready[0][1][0] = (program, arguments, expected + 1e-3 * abs(expected).max())
    assert worker.times()["found"][0]["seconds"] == float("inf")
    late = worker.compile([job], seconds=-1.0, dry=True)["failed"]
    assert list(late.values()) == ["no time was left"]


def test_dead_worker_is_left_out(capsys: pytest.CaptureFixture[str], tmp_path: Path):
    quits = 'print(\'{"peak_mb": 0, "failed": {}}\', flush=True)'
    worker = tiles.ContenderProcess("tiles 3", [sys.executable, "-c", quits], tmp_path / "log")
    assert tiles.answered(worker, time.monotonic() + 60) == {"peak_mb": 0, "failed": {}}
    assert tiles.answered(worker, time.monotonic() + 60) == {}
    assert "tiles 3 is left out: the process ended with 0" in capsys.readouterr().err
    worker.close()


def test_measured_tiles_are_among_the_candidates():
    todo = tiles.jobs(dry=False)
    chosen = json.loads(MEASURED.read_text())
    assert {job["key"] for job in todo} == set(chosen)
    assert all({"key": key, "tiles": one} in todo for key, one in chosen.items())
    shares = tiles.shares(todo, 14)
    assert sorted(map(json.dumps, sum(shares, []))) == sorted(map(json.dumps, todo))


def test_docs_show_tile_results():
    for path in tiles.FOLDER.glob("tiles-*.json"):
        assert tiles.of_device(json.loads(path.read_text())).strip() in PAGE.read_text()


def test_docs_show_operation_counts():
    found = json.loads(counts.RESULT.read_text())["workloads"]
    assert counts.counts_table(found).strip() in PAGE.read_text()


def test_unknown_workload_exits_with_2(capsys: pytest.CaptureFixture[str]):
    assert counts.main(["nope"]) == 2
    assert "there is no workload 'nope'; choose among: sinusoid, omniglot" in capsys.readouterr().err
