"""A clock that goes backwards, memory that runs out, compiled programs damaged on disk."""

import itertools
import resource
import struct
import time
import warnings
from dataclasses import replace
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental.compilation_cache import compilation_cache
from tensorboardX.proto.event_pb2 import Event  # pyright: ignore[reportAttributeAccessIssue]

from innerloop.config.schema import Config, ModelConfig
from innerloop.errors import InnerloopError
from innerloop.training.memory.out_of_memory import exhausted, explain_oom
from innerloop.training.storage import weights
from innerloop.training.storage.run_directory import RunFolder
from innerloop.training.storage.tensorboard import ScalarWriter
from innerloop.training.train import train

TOLD = "memory ran out .*got memory: about .*`outer.chunk`.* 1.*rematerialised.*`outer.meta_batch`"


def events(folder: Path) -> list[Event]:
    """The records of a TensorBoard file, read by their lengths."""
    (path,) = folder.iterdir()
    content, found = path.read_bytes(), []
    while content:
        (size,) = struct.unpack("<Q", content[:8])
        found.append(Event.FromString(content[12 : 12 + size]))
        content = content[16 + size :]
    return found


def test_backward_clock_keeps_log_times_monotonic(
    short: Config, finished: Path, tmp_path: Path, monkeypatch, survived
):
    """An hour back at every look: times in the logs go on, and so does the run."""
    hours, now = itertools.count(), time.time()
    with monkeypatch.context() as patch:
        patch.setattr(time, "time", lambda: now - 3600 * next(hours))
        train(short, tmp_path / "run")
    seconds = RunFolder(tmp_path / "run").seconds()
    assert 0 <= seconds < 3600
    times = [event.wall_time for event in events(tmp_path / "run" / "tensorboard")]
    assert len(times) > 6
    assert times == sorted(times)
    assert max(times) - min(times) < 3600
    a, b = (weights.load(path / "weights.safetensors")[0] for path in (tmp_path / "run", finished))
    jax.tree.map(np.testing.assert_array_equal, a, b)
    survived(
        "clock going backwards", 1, "times in the logs never go back; the run has the same bits", "nothing"
    )


def test_out_of_memory_error_is_explained(short: Config, tmp_path: Path, survived):
    """A meta-step that asks for more than the address space has left, so that no machine promises it."""
    config = replace(
        short,
        data=replace(short.data, shots=1_000_000),
        model=ModelConfig(kind="mlp", hidden=(4000,)),
        outer=replace(short.outer, snapshots=0),
    )
    before = resource.getrlimit(resource.RLIMIT_AS)
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + (6 << 30), before[1]))
    try:
        with pytest.raises(InnerloopError, match=TOLD):
            train(config, tmp_path / "run")
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)
    survived(
        "out of memory", 1, "reported with the memory plan and what to change", "one checkpoint interval"
    )


def test_explain_oom_converts_only_memory_errors():
    assert exhausted(MemoryError())
    assert not exhausted(ValueError("RESOURCE_EXHAUSTED: No space left on device"))
    with pytest.raises(InnerloopError, match="memory ran out .MemoryError.; vectorise"), explain_oom():
        raise MemoryError
    with pytest.raises(ZeroDivisionError), explain_oom():
        raise ZeroDivisionError
    with pytest.raises(InnerloopError, match="x: y"), explain_oom():
        raise InnerloopError("x", "y")


def test_damaged_compilation_cache_is_recompiled(tmp_path: Path, survived):
    """Every one cut short or overwritten: compiled anew, with the same answer."""
    program = jax.jit(lambda x: jnp.sin(x) @ x.T + 17)
    x = jnp.arange(12.0).reshape(3, 4)
    settings = {"jax_compilation_cache_dir": str(tmp_path), "jax_persistent_cache_min_compile_time_secs": 0.0}
    before = {name: getattr(jax.config, name) for name in settings}
    try:
        for name, value in settings.items():
            jax.config.update(name, value)
        compilation_cache.reset_cache()
        wanted = program(x)
        kept = [path for path in tmp_path.rglob("*") if path.is_file()]
        assert kept
        for number, path in enumerate(kept):
            path.write_bytes(path.read_bytes()[:40] if number % 2 else b"\0" * 100)
        jax.clear_caches()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            np.testing.assert_array_equal(program(x), wanted)
    finally:
        for name, value in before.items():
            jax.config.update(name, value)
        compilation_cache.reset_cache()
    survived("compiled programs damaged on disk", len(kept), "compiled again, same result", "nothing")


def test_nan_is_written_to_tensorboard_without_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    board = ScalarWriter(tmp_path)
    board.add_scalar("/outer loss", float("nan"), 3)
    board.close()
    (value,) = events(tmp_path)[-1].summary.value
    assert (value.tag, np.isnan(value.simple_value)) == ("outer_loss", True)
    assert not caplog.records


def test_unwritable_tensorboard_warns_once(tmp_path: Path):
    (tmp_path / "file").write_text("")
    with pytest.warns(UserWarning, match="stopped writing for TensorBoard in .*file"):
        board = ScalarWriter(tmp_path / "file")
    board.add_scalar("loss", 1.0, 1)
    board.close()
    (tmp_path / "board").mkdir()
    first = ScalarWriter(tmp_path / "board")
    board = ScalarWriter(tmp_path / "board")
    assert len(list((tmp_path / "board").iterdir())) == 2
    first.close()
    resource_before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10, resource_before[1]))
    try:
        with pytest.warns(UserWarning, match="File too large"):
            board.add_scalar("loss", 1.0, 1)
        board.add_scalar("loss", 1.0, 2)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, resource_before)
