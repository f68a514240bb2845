"""The benchmark on a GPU with contenders of a few lines: who is timed, who is left out, and that its time is kept."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from benchmarks.gpu import __main__ as command
from benchmarks.gpu import page
from benchmarks.gpu.cases import CASES, cases
from benchmarks.gpu.clock import Clock
from benchmarks.gpu.roofline import roofline

ROOT = Path(__file__).resolve().parents[2]
WORKER = """
import sys, time
import numpy as np
from benchmarks.speed.worker_protocol import serve
name, behaviour = sys.argv[1:]
if name == "torch" and behaviour == "without torch": raise ModuleNotFoundError("No module named 'torch'")
class Ours:
    def device(self):
        kind = "cpu" if behaviour == "no gpu" else "gpu"
        return {"platform": kind, "device": "Fast 1", "precisions": ["float32", "bfloat16"], "versions": {"jax": "1"},
                "convolution": "patches"}
    def rates(self, megabytes, side):
        return {"copy": 1e9, "products": {"float32": 1e15, "bfloat16": 2e15}}
    def load(self, workload, problem, precision, convolution):
        if behaviour == "fails": raise RuntimeError("cannot")
        if behaviour == "fails once" and workload["name"] == "omniglot": raise RuntimeError("out of memory")
        if behaviour == "slow" and (precision == "bfloat16" or workload["name"] == "omniglot"): time.sleep(60)
        np.savez(problem, a=np.ones(2))
        self.precision = precision if convolution == "patches" else "pallas"
        cost = {"kernels": 3.0, "loops": 1.0, "bytes": 2e6, "operations": 0.0}
        return {"compile_s": 1.0, "memory_mb": 5.0, "cost": cost, "xla": {}}
    def steps(self, count):
        return {"seconds": 0.004 * count}
    def gradient(self, path):
        np.savez(path, a=np.array([1.0, 2.0]) * {"float32": 1.0, "bfloat16": 1.1, "pallas": 1.2}[self.precision])
        return {}
    def exact(self, workload, problem, path):
        np.savez(path, a=np.array([1.0, 2.0]))
        return {}
class Torch:
    def device(self):
        return {"device": "Fast 1", "graphs": True, "versions": {"torch": "2"}}
    def load(self, workload, problem, method, graph):
        self.method, self.graph = method, graph
        return {}
    def gradient(self, path, double):
        kink = 1.0 if double else 1.04
        off = {("pytorch-loop", True): kink, ("torch.func-vmap", True): 1.04}.get((self.method, self.graph), 1.0)
        np.savez(path, a=np.array([1.0, 2.0]) * off)
        return {}
    def prepare(self, precision):
        return {}
    def steps(self, count):
        return {"seconds": count * (0.008 if self.graph else 0.02), "memory_mb": 7.0}
serve(Torch if name == "torch" else Ours, 1)
"""


@pytest.fixture
def behave(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Contenders that behave as is said, and result files in a folder of their own."""
    script = tmp_path / "worker.py"
    script.write_text(WORKER)
    monkeypatch.setenv("PYTHONPATH", f"{ROOT}:{ROOT / 'src'}")
    monkeypatch.setattr(page, "FOLDER", tmp_path)
    monkeypatch.setattr(page, "PAGE", tmp_path / "page.md")
    (tmp_path / "page.md").write_text("above\n<!-- gpu:begin -->\n<!-- gpu:end -->\nbelow\n")

    def set_to(behaviour: str) -> Path:
        monkeypatch.setattr(
            "benchmarks.gpu.worker.command", lambda name, dry: [sys.executable, str(script), name, behaviour]
        )
        return tmp_path

    return set_to


def result(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "gpu-fast-1.json").read_text())


def test_correct_contenders_are_timed_in_every_precision(behave, capsys: pytest.CaptureFixture[str]):
    folder = behave("well")
    assert command.main(["--workloads", "omniglot"]) == 0
    (found,) = result(folder)["workloads"]
    ours = {(r["precision"], r["convolution"]): r for r in found["runs"] if r["by"] == "innerloop"}
    assert {name: (run["ms"], run["error"]) for name, run in ours.items()} == {
        ("float32", "patches"): (pytest.approx(4.0), 0.0),
        ("bfloat16", "patches"): (pytest.approx(4.0), pytest.approx(0.1)),
        ("float32", "pallas"): (pytest.approx(4.0), pytest.approx(0.2)),
    }
    assert {run["cost"]["operations"] for run in ours.values()} == {found["operations"]}
    assert ours["float32", "patches"]["roofline"]["share"] == pytest.approx(0.5)  # 2 MB at 1 GB/s in 4 ms
    peers = {(r["by"], r["graph"], r["precision"]): r for r in found["runs"] if r["by"] != "innerloop"}
    assert {key: run["ms"] for key, run in peers.items()} == {
        ("pytorch-loop", False, "float32"): pytest.approx(20.0),
        ("pytorch-loop", False, "tf32"): pytest.approx(20.0),
        ("pytorch-loop", True, "float32"): pytest.approx(8.0),  # right in float64
        ("pytorch-loop", True, "tf32"): pytest.approx(8.0),
        ("torch.func-vmap", False, "float32"): pytest.approx(20.0),
        ("torch.func-vmap", False, "tf32"): pytest.approx(20.0),
    }
    assert found["left_out"] == {"torch.func-vmap, CUDA graph": "wrong meta-gradient: relative error 0.04"}
    row = "| omniglot | float32 | 4.00 | 20.0 | 20.0 | 8.00 | – | **2.00** | 5.00 | 7.00 | 1.0 | 0.0e+00 |"
    printed = capsys.readouterr().out
    assert row in printed
    assert "| omniglot | float32, pallas | 4.00 |" in printed
    assert row in (folder / "page.md").read_text()
    assert "torch 2" in (folder / "page.md").read_text()


def test_without_pytorch_only_innerloop_is_timed(behave, capsys: pytest.CaptureFixture[str]):
    folder = behave("without torch")
    assert command.main(["--workloads", "omniglot", "cifar-fs"]) == 0
    found = result(folder)
    assert "No module named 'torch'" in found["no_torch"]
    assert "No module named 'torch'" in capsys.readouterr().err
    assert [{run["by"] for run in w["runs"]} for w in found["workloads"]] == [{"innerloop"}] * 2


def test_timeout_of_one_workload_does_not_stop_the_others(behave):
    """Neither a workload nor a precision; what it did not allow is said."""
    folder = behave("slow")
    assert command.main(["--workloads", "omniglot", "cifar-fs", "--seconds", "12"]) == 0
    found = result(folder)
    assert found["seconds"] < 15
    stuck, other = sorted(found["workloads"], key=lambda w: w["workload"] != "omniglot")
    assert "no answer to 'load'" in stuck["left_out"]["innerloop float32, patches"]
    ours = [run for run in other["runs"] if run["by"] == "innerloop"]
    assert {run["precision"] for run in ours} == {"float32"}
    assert "no answer to 'load'" in other["left_out"]["innerloop bfloat16, patches"]
    assert {run["by"] for run in other["runs"]} >= {"pytorch-loop"}  # what is compiled in time leaves some


def test_failure_of_one_workload_does_not_stop_the_others(behave, capsys: pytest.CaptureFixture[str]):
    folder = behave("fails once")
    assert command.main(["--workloads", "omniglot", "cifar-fs"]) == 1
    assert "ours failed: omniglot: RuntimeError: out of memory" in capsys.readouterr().err
    failed, other = sorted(result(folder)["workloads"], key=lambda w: w["workload"] != "omniglot")
    assert failed["left_out"]["innerloop float32, patches"] == "RuntimeError: out of memory"
    assert {run["by"] for run in other["runs"]} >= {"innerloop", "pytorch-loop"}


@pytest.mark.parametrize(
    ("behaviour", "words", "code", "said"),
    [
        ("no gpu", [], 2, "JAX sees no GPU here"),
        ("fails", ["--workloads", "omniglot"], 1, "ours failed: omniglot: RuntimeError: cannot"),
        ("well", ["--seconds", "0"], 2, "--seconds: must be above 0, got 0."),
    ],
)
def test_fatal_error_sets_exit_code_and_writes_no_result(
    behave, behaviour: str, words: list[str], code: int, said: str, capsys: pytest.CaptureFixture[str]
):
    folder = behave(behaviour)
    assert command.main(words) == code
    assert said in capsys.readouterr().err
    assert not list(folder.glob("gpu-*.json"))


@pytest.mark.slow
@pytest.mark.usefixtures("quick_processes")
def test_dry_run_of_real_worker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The code of a GPU in three precisions on a CPU, and its gradient against float64."""
    found: list[dict[str, Any]] = []
    real = command.measure
    monkeypatch.setattr(page, "FOLDER", tmp_path)
    monkeypatch.setenv("PYTHONPATH", f"{ROOT}:{ROOT / 'src'}")
    monkeypatch.setattr(command, "measure", lambda *words: found.append(real(*words)) or found[0])
    assert command.main(["--dry", "--workloads", "sinusoid", "--seconds", "600"]) == 0
    runs = [run for run in found[0]["workloads"][0]["runs"] if run["by"] == "innerloop"]
    assert [run["precision"] for run in runs] == ["float32", "tf32", "bfloat16"]
    assert all(run["error"] < 1e-6 for run in runs)
    assert all(run["cost"]["kernels"] > 100 and run["memory_mb"] > 0 for run in runs)
    assert not list(tmp_path.glob("gpu-*.json"))


# --- arithmetic -----------------------------------------------------------------------------------------------


def test_clock_passes_unused_time_to_later_turns():
    time = [0.0]
    clock = Clock(100.0, [1, 1, 2], now=lambda: time[0])
    clock.begin(0)
    assert clock.turn_left == 25.0
    time[0] = 10.0
    clock.begin(1)
    assert clock.turn_left == 30.0
    time[0] = 90.0
    assert clock.turn_left == 0.0
    clock.begin(2)
    assert (clock.turn_left, clock.left, clock.passed) == (10.0, 10.0, 90.0)


def test_roofline_is_the_slower_of_memory_and_products():
    rates = {"copy": 1e9, "products": {"float32": 1e12}}
    found = roofline({"bytes": 2e6, "operations": 1e9}, "float32", rates, 0.008)
    assert found == {"copy_ms": 2.0, "product_ms": 1.0, "bound_by": "memory", "share": 0.25}
    assert roofline({"bytes": 2e6, "operations": 4e9}, "float32", rates, 0.008)["bound_by"] == "products"


def test_dry_cases_keep_workloads_and_shrink_shapes():
    assert [c.workload.name for c in cases(dry=True)] == [c.workload.name for c in CASES]
    assert [c.workload.algorithm for c in cases(dry=False)] == ["maml"] * len(CASES)
    for small, case in zip(cases(dry=True), CASES, strict=True):
        assert small.workload.tasks < case.workload.tasks
        assert (small.workload.downsample, small.weight) == (case.workload.downsample, case.weight)


def test_gpu_page_matches_result_files():
    text = page.PAGE.read_text().split("<!-- gpu:begin -->")[1].split("<!-- gpu:end -->")[0]
    assert text.strip() == page.tables(page.load()).strip()
