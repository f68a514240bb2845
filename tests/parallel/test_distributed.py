"""How processes are told where to meet, and what a single one does with the same words."""

import os
import signal
import socket
import subprocess
import sys
import time
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from innerloop.cli import distributed as processes
from innerloop.config.schema import Config
from innerloop.errors import InnerloopError
from innerloop.parallel import mesh, multi_process
from innerloop.parallel.multi_process import Lost, ProcessGroup
from innerloop.training.train import settings


@pytest.fixture
def told(monkeypatch):
    """What JAX's runtime is told, in place of starting it; JAX's settings as they were."""
    seen = {}
    note = lambda *where, **how: seen.update(where=where, **how)
    monkeypatch.setattr(jax.distributed, "initialize", note)
    monkeypatch.setattr(jax.config, "update", lambda name, value: seen.update({name: value}))
    for name in ("JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID"):
        monkeypatch.delenv(name, raising=False)
    return seen


def test_arguments_override_environment(told, monkeypatch):
    monkeypatch.setenv("JAX_COORDINATOR_ADDRESS", "host0:1234")
    monkeypatch.setenv("JAX_NUM_PROCESSES", "8")
    monkeypatch.setenv("JAX_PROCESS_ID", "3")
    multi_process.initialize(ProcessGroup(process=5, patience=7))
    assert told["where"] == ("host0:1234", 8, 5)
    assert (told["heartbeat_timeout_seconds"], told["cluster_detection_method"]) == (7, "deactivate")
    assert told["jax_cpu_collectives_implementation"] == "gloo"


def test_missing_arguments_enable_cluster_detection(told):
    multi_process.initialize(ProcessGroup())
    assert told["where"] == (None, None, None)
    assert told["cluster_detection_method"] is None


@pytest.mark.parametrize(
    ("meeting", "words"),
    [
        (ProcessGroup(coordinator="host0"), "must be HOST:PORT, got 'host0'"),
        (ProcessGroup(processes=0), "counted from 0"),
        (ProcessGroup(process=-1), "counted from 0"),
        (ProcessGroup(processes=2, process=2), "must be below 2, got 2"),
        (ProcessGroup(patience=0), "must be 1 or more"),
    ],
)
def test_invalid_process_groups_raise(told, meeting, words):
    with pytest.raises(InnerloopError, match=words):
        multi_process.initialize(meeting)
    assert "where" not in told


def test_invalid_environment_number_raises(told, monkeypatch):
    monkeypatch.setenv("JAX_NUM_PROCESSES", "four")
    with pytest.raises(InnerloopError, match="JAX_NUM_PROCESSES: must be a whole number, got 'four'"):
        multi_process.initialize(ProcessGroup())


def test_port_in_use_raises(told):
    with socket.create_server(("", 0)) as listening:
        port = listening.getsockname()[1]
        with pytest.raises(InnerloopError, match=f"the port cannot be used .*, got {port}"):
            multi_process.initialize(ProcessGroup(f"127.0.0.1:{port}", 2, 0))


def test_missing_cluster_and_coordinator_raises(told, monkeypatch):
    def refuse(*where, **how):
        raise ValueError("coordinator_address should be defined.")

    monkeypatch.setattr(jax.distributed, "initialize", refuse)
    with pytest.raises(
        InnerloopError, match=r"did not connect, got coordinator.*give `distributed\.coordinator"
    ):
        multi_process.initialize(ProcessGroup())


def test_single_process_helpers_return_inputs_unchanged():
    tree = {"x": np.ones(2)}
    assert not multi_process.is_multi_process()
    assert multi_process.is_primary()
    assert multi_process.all_gather_int(-5) == [-5]
    assert multi_process.from_first(b"x") == b"x"
    assert multi_process.tree_from_first(tree) is tree
    multi_process.check_same(b"x", "settings")
    config = Config(name="mine")
    assert settings(config) == config
    with pytest.raises(InnerloopError, match="needs a config"):
        settings(None)


def test_detect_lost_process_converts_only_collective_errors(monkeypatch):
    def failing(error):
        with multi_process.detect_lost_process():
            raise error

    with pytest.raises(ValueError, match="Gloo"):  # alone there is nobody to lose
        failing(ValueError("Gloo all-reduce failed"))
    monkeypatch.setattr(multi_process, "is_multi_process", lambda: True)
    with pytest.raises(Lost, match="Gloo"):
        failing(ValueError("Gloo all-reduce failed"))
    with pytest.raises(Lost):
        failing(jax.errors.JaxRuntimeError("UNAVAILABLE: gone"))
    with pytest.raises(jax.errors.JaxRuntimeError, match="RESOURCE"):
        failing(jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: no memory"))
    with pytest.raises(InnerloopError, match="alpha"):
        failing(InnerloopError("alpha", "is wrong"))


def devices(*processes: int) -> Any:
    return [SimpleNamespace(process_index=index) for index in processes]


def test_task_mesh_rejects_meta_batch_indivisible_by_processes():
    with pytest.raises(
        InnerloopError, match="multiple of the number of processes, got 25 tasks for 2 processes"
    ):
        mesh.task_mesh(25, devices(0, 0, 1, 1))


def test_by_process_groups_devices():
    given = devices(1, 0, 1, 0)
    assert mesh.by_process(given) == [[given[1], given[3]], [given[0], given[2]]]


def test_local_tasks_selects_slice_of_process(monkeypatch):
    whole = jax.sharding.Mesh(np.array(jax.devices()[:2]), ("tasks",))
    assert mesh.local_tasks(whole, 12) == slice(0, 12)
    monkeypatch.setattr(mesh, "_local_devices", lambda mesh: list(mesh.devices.flat)[1:])
    assert mesh.local_tasks(whole, 12) == slice(6, 12)


@pytest.mark.parametrize("count", [1, 2, 3, 5])
def test_mean_over_devices_matches_numpy(count):
    """Sizes that the devices do not divide, a scalar among them; the same everywhere."""
    rng = np.random.default_rng(0)
    tree = {"w": rng.normal(size=(count, 2, 7)), "b": rng.normal(size=count)}
    tree = jax.tree.map(jnp.asarray, tree)
    means = jax.vmap(mesh.mean_over_devices, axis_name="tasks")(tree)
    for name, x in tree.items():
        expected = np.broadcast_to(np.asarray(x).mean(0), x.shape)
        np.testing.assert_allclose(means[name], expected, rtol=1e-6, atol=1e-7)


@pytest.fixture
def child(monkeypatch):
    """`child(code)`: the command watches a Python program instead of a training."""
    kept = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    yield lambda code: monkeypatch.setattr(processes, "COMMAND", (sys.executable, "-c", code))
    for number, handler in kept.items():
        signal.signal(number, handler)


def test_aborted_child_is_reported_as_lost(child, capfd, tmp_path):
    child("import os; os.abort()")
    assert processes.supervise([], tmp_path) == processes.LOST == 75
    assert capfd.readouterr().err.endswith("again with --resume if the first process saved a checkpoint.\n")
    folder = tmp_path / "my run"
    folder.mkdir()
    (folder / "config.json").touch()
    assert processes.supervise([], folder) == 75
    assert capfd.readouterr().err.endswith(f"again with `innerloop train --resume '{folder}'`.\n")


def test_child_exit_codes_are_forwarded(child, tmp_path):
    child("import sys; sys.exit(3)")
    assert processes.supervise([], tmp_path) == 3
    child("import os; os.kill(os.getpid(), 9)")
    assert processes.supervise([], tmp_path) == 137


def test_signal_is_forwarded_once(child, tmp_path):
    child("import os, signal; os.kill(os.getppid(), signal.SIGTERM); signal.pause()")
    assert processes.supervise([], tmp_path) == 143


AS_ONE = """
import sys
from pathlib import Path
from innerloop.cli import distributed
from innerloop.parallel.multi_process import Lost
from innerloop.errors import InnerloopError
def work(): raise {error}
distributed.as_one(work, Path("run"))
"""


@pytest.mark.parametrize(
    ("error", "code", "words"),
    [
        ('InnerloopError("alpha", "is wrong")', 2, "innerloop: alpha: is wrong."),
        ('Lost("gone")', 75, "another process of this run was lost"),
        ("KeyError(3)", 1, "KeyError: 3"),
    ],
)
def test_process_exits_immediately_after_error(error, code, words):
    done = subprocess.run([sys.executable, "-c", AS_ONE.format(error=error)], capture_output=True, text=True)
    assert (done.returncode, words in done.stderr) == (code, True), done.stderr


def test_child_ends_with_parent():
    """The one in the middle is killed; the last one sees that its parent is gone."""
    last = (
        "import time; from innerloop.cli import distributed as p; p.end_with_parent(); print(1, flush=True)"
    )
    last += "; time.sleep(60)"
    middle = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {last!r}])"
    with subprocess.Popen([sys.executable, "-c", middle], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "1\n"
        process.kill()
        begun = time.monotonic()
        assert process.stdout.read() == ""  # the pipe closes when the last one that holds it ends
    assert time.monotonic() - begun < 30


@pytest.mark.skipif(os.name == "nt", reason="the parent is Python's launcher there")
def test_child_of_dead_parent_ends():
    """Its own number is never that of its parent."""
    code = "import os, time; from innerloop.cli import distributed as p; p.end_with_parent(os.getpid()); time.sleep(60)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == processes.LOST


def test_is_child_reads_environment(monkeypatch):
    monkeypatch.delenv(processes.CHILD, raising=False)
    assert not processes.is_child()
    monkeypatch.setenv(processes.CHILD, str(os.getppid()))
    assert processes.is_child()
