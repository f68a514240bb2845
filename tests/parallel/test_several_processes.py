"""One run, the same on any number of devices and processes; stopped, lost and gone on with."""

import os
import signal
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from benchmarks.scaling import launch
from tests.compilation import unmeasured

from innerloop.cli import main
from innerloop.training.storage import weights
from innerloop.training.storage.run_directory import RunFolder

pytestmark = pytest.mark.usefixtures("quick_processes")  # every process compiles alike

WORKER = Path(__file__).with_name("worker.py")


def work(count: int, file: Path, *devices: int) -> None:
    port = launch.free_port()
    command = lambda index: [sys.executable, str(WORKER), *map(str, (count, index, port, file, *devices))]
    for code, told in launch.end([launch.Process(command(i), env=unmeasured()) for i in range(count)]):
        assert code == 0, told


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """Results by (processes, devices)."""
    folder = tmp_path_factory.mktemp("scale")
    work(1, folder / "1", 1, 2, 4)
    work(2, folder / "2")
    work(4, folder / "4")
    runs = [(1, 1), (1, 2), (1, 4), (2, 2), (4, 4)]
    return {(p, d): dict(np.load(folder / f"{p}-{d}.npz")) for p, d in runs}


@pytest.mark.slow
@pytest.mark.parametrize("arrangement", [(1, 2), (1, 4), (2, 2), (4, 4)])
def test_results_match_single_device(found, arrangement):
    one, other = found[1, 1], found[arrangement]
    assert other.keys() == one.keys() or arrangement[1] == 4
    for name in other:
        np.testing.assert_allclose(other[name], one[name], rtol=1e-10, atol=1e-12, err_msg=name)
    assert np.linalg.norm(one["gradient 0"]) > 1e-3
    assert one["scores 0"].shape == (21, 2)


@pytest.mark.slow
@pytest.mark.parametrize("count", [2, 4])
def test_results_are_bit_identical_across_process_counts(found, count):
    one, many = found[1, count], found[count, count]
    for name in many:
        np.testing.assert_array_equal(many[name], one[name], err_msg=name)


SHORT = ("sinusoid-maml", "--model.hidden", "8", "--outer.meta-batch", "4", "--outer.meta-steps", "400")
SHORT += ("--outer.log-every", "5", "--outer.checkpoint-every", "20", "--outer.validate-every", "0")
SHORT += ("--evaluation.validation-tasks", "6", "--evaluation.steps", "1", "--outer.snapshots", "2")


@pytest.mark.slow
def test_resume_after_stop_and_lost_process_is_bit_identical(tmp_path):
    """SIGTERM to one of two; both again, and one killed; then one process with two devices, to the end."""
    run, whole = tmp_path / "run", tmp_path / "whole"
    both = launch.start(2, [*SHORT, "--folder", str(run)])
    launch.wait_for_lines(run, 3, both)
    both[1].send_signal(signal.SIGTERM)
    codes, told = zip(*launch.end(both), strict=True)
    assert codes == (143, 143), told
    assert "Stopped at meta-step" in told[0]
    assert "Stopped" not in told[1]  # the first speaks
    stopped = RunFolder(run).metrics()[-1]["step"]
    assert (run / "checkpoints" / str(stopped)).is_dir()

    both = launch.start(2, ["--resume", str(run)])
    launch.wait_for_lines(run, stopped // 5 + 4, both)
    ((code, seconds, said),) = launch.lose(both, 1, signal.SIGKILL)
    assert code == 75, said
    assert "another process of this run was lost or never joined; to resume" in said
    assert f"`innerloop train --resume {run}`." in said
    assert seconds < 30
    assert not (run / "weights.safetensors").exists()

    assert len(jax.devices()) == 2
    for words in (["--resume", str(run)], [*SHORT, "--folder", str(whole)]):
        assert main(["train", *words]) == 0
    a, b = (weights.load(folder / "weights.safetensors")[0] for folder in (run, whole))
    assert all((a[name] == b[name]).all() for name in a)
    assert RunFolder(run).metrics() == RunFolder(whole).metrics()
    assert sorted(os.listdir(run / "snapshots")) == sorted(os.listdir(whole / "snapshots"))
