"""The race with contenders of a few lines: who is timed, who is refused, and what a dead process costs."""

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from benchmarks.speed import runner
from benchmarks.speed.process import OURS, ContenderError, ContenderProcess
from benchmarks.speed.workloads import Workload

CONTENDER = """
import sys
import numpy as np
from benchmarks.speed.worker_protocol import serve
behaviour = sys.argv[1]
class Contender:
    def load(self, workload, problem):
        print("noise among the answers")
        if behaviour == "dies": sys.exit(7)
        if behaviour == "raises": raise RuntimeError("cannot\\nsecond line")
        return {"compile_s": 1.0, "versions": {behaviour: "1"}}
    def gradient(self, path, double):
        off = {"wrong": 1.04, "kink": 1.0 if double else 1.04}.get(behaviour, 1.0)
        np.savez(path, a=np.array([1.0, 2.0]) * off)
        return {}
    def steps(self, count):
        return {"seconds": count * {"ours": 0.01, "slow": 0.09}.get(behaviour, 0.03)}
    def peak(self):
        return {"gflops": 100.0}
serve(Contender, 1)
"""


def start(name: str, script: Path) -> ContenderProcess:
    return ContenderProcess(name, [sys.executable, str(script), name], script.with_name(f"{name}.log"))


@pytest.fixture
def script(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "contender.py"
    path.write_text(CONTENDER)
    monkeypatch.setenv("PYTHONPATH", str(runner.Path(runner.__file__).resolve().parents[2]))
    monkeypatch.setattr(runner, "command", lambda name, threads: [sys.executable, str(path), name])
    return path


def test_race_times_correct_contenders_and_reports_the_rest(script: Path) -> None:
    told: list[str] = []
    w = Workload(
        "race", peers=("right", "slow", "kink", "wrong", "dies", "raises"), image=(16, 16, 1), per_dispatch=4
    )
    found: dict[str, Any] = runner.race(w, 0.0, 2, told.append)
    assert found["peers_ms"] == pytest.approx({"right": 30.0, "slow": 90.0, "kink": 30.0})
    assert found["ours_ms"] == pytest.approx(10.0)
    assert found["ratio"] == pytest.approx(3.0)
    assert set(found["refused"]) == {"wrong", "dies", "raises"}
    assert "relative error 0.04" in found["refused"]["wrong"]
    assert "ended with 7" in found["refused"]["dies"]
    assert found["refused"]["raises"] == "RuntimeError: cannot"
    assert found["turns"] == {OURS: 2, "right": 2, "slow": 1, "kink": 2}
    assert found["checked_in_double"] == ["kink", "wrong"]
    assert found["peak_gflops"] == 100.0
    assert found["whole_memory_mb"][OURS] >= found["memory_mb"][OURS] > 1
    assert any("round" in line for line in told)


def test_race_fails_if_innerloop_fails(script: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runner, "command", lambda name, threads: [sys.executable, str(script), "raises"])
    with pytest.raises(ContenderError, match="cannot"):
        runner.race(Workload("race", peers=()), 0.0, 1, lambda words: None)


def test_unresponsive_contender_times_out(script: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("benchmarks.speed.process.PATIENCE", 0.01)
    silent = ContenderProcess(
        "silent", [sys.executable, "-c", "import time; time.sleep(60)"], script.with_name("log")
    )
    with pytest.raises(ContenderError, match="no answer"):
        silent.ask("ready")
    silent.close()


MEMORY = """
from benchmarks.speed.worker_protocol import serve
class Contender:
    def load(self):
        much = bytearray(b"1" * 50_000_000)
        return {}
    def steps(self):
        return {}
serve(Contender, 1)
"""


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="Linux counts the peak anew")
@pytest.mark.usefixtures("script")
def test_forget_peak_resets_peak_memory(tmp_path: Path) -> None:
    one = ContenderProcess("one", [sys.executable, "-c", MEMORY], tmp_path / "log")
    before = one.ask("load")["peak_mb"]
    one.ask("forget_peak")
    assert one.ask("steps")["peak_mb"] < before - 40
    one.close()


def test_relative_error(tmp_path: Path) -> None:
    paths = [str(tmp_path / f"{i}.npz") for i in range(3)]
    np.savez(paths[0], a=np.array([3.0, 4.0]), b=np.zeros(2))
    np.savez(paths[1], a=np.array([3.0, 4.0]), b=np.array([0.0, 1.0]))
    np.savez(paths[2], a=np.array([3.0, 4.0]))
    assert runner.relative_error(paths[1], paths[0]) == pytest.approx(0.2)
    with pytest.raises(ContenderError, match="different parameters"):
        runner.relative_error(paths[2], paths[0])
