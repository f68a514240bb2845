"""Commands called in this process, processes that are attacked, and what neither may touch."""

import hashlib
import os
import resource
import subprocess
import sys
import time
import tracemalloc
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tests.faults.child import SHORT

from innerloop.cli import main
from innerloop.config.schema import Config
from innerloop.training.storage import weights

TINY = (
    "--outer.meta-steps",
    "8",
    "--outer.log-every",
    "2",
    "--outer.checkpoint-every",
    "4",
    "--outer.meta-batch",
    "2",
)
TINY += ("--outer.validate-every", "0", "--outer.snapshots", "0", "--model.hidden", "4")
TINY += ("--evaluation.tasks", "2", "--evaluation.steps", "1", "--evaluation.validation-tasks", "2")


@pytest.fixture(scope="session")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run that tests may read."""
    folder = tmp_path_factory.mktemp("base") / "base"
    assert main(["train", "sinusoid-maml", *TINY, "--folder", str(folder)]) == 0
    return folder


def contents(folder: Path) -> dict[str, str]:
    """What lies in a folder: kind and content by name, times left out."""
    found = {}
    for place, folders, files in os.walk(folder):
        for name in folders + files:
            path = Path(place) / name
            if path.is_symlink():
                said = f"-> {os.readlink(path)}"
            elif path.is_file():
                said = hashlib.sha256(path.read_bytes()).hexdigest()
            else:
                said = "folder"
            found[str(path.relative_to(folder))] = said
    return found


@pytest.fixture(name="contents")
def contents_fixture() -> Callable[[Path], dict[str, str]]:
    return contents


@pytest.fixture(scope="session")
def short() -> Config:
    """12 meta-steps of 2 sinusoids, a line every 2, a checkpoint at the end alone."""
    return replace(SHORT, outer=replace(SHORT.outer, checkpoint_every=100))


@pytest.fixture(scope="session")
def finished(short: Config, tmp_path_factory: pytest.TempPathFactory, quickly: Callable) -> Path:
    """A run of `short` that was never disturbed."""
    from innerloop.training.train import train

    folder = tmp_path_factory.mktemp("runs") / "finished"
    with quickly():
        train(short, folder)
    return folder


@pytest.fixture
def same_run(finished: Path) -> Callable[[Path], None]:
    """Checks weights to the bit and metrics to the letter."""

    def check(folder: Path) -> None:
        a, b = (weights.load(path / "weights.safetensors")[0] for path in (folder, finished))
        assert a.keys() == b.keys()
        for name in a:
            np.testing.assert_array_equal(a[name], b[name])
        assert (folder / "metrics.jsonl").read_text() == (finished / "metrics.jsonl").read_text()

    return check


AS_COMMAND = """
import ctypes, sys, threading, time
from innerloop import cli
from innerloop.training.interruption import signals
from innerloop.__main__ import entry
def main(argv=None):
{body}
cli.main = main
entry()
"""


@pytest.fixture
def process() -> Callable[..., subprocess.Popen[str]]:
    """`process(body)`: a process like the command, whose work is this Python code; it has printed a line."""

    def start(body: str, before: Sequence[str] = (), **options: object) -> subprocess.Popen[str]:
        script = AS_COMMAND.format(body="\n".join("    " + line for line in body.strip().splitlines()))
        streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        started = subprocess.Popen([*before, sys.executable, "-c", script], **streams, **options)  # pyright: ignore
        assert started.stdout is not None
        assert started.stdout.readline() == "ready\n", started.communicate()
        return started

    return start


@pytest.fixture
def traced() -> Iterator[None]:
    """What Python and NumPy hold at once is less than 40 MB."""
    tracemalloc.start()
    yield
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 40 << 20


@pytest.fixture
def bounded() -> Iterator[None]:
    """What the test does takes less than 300 MB and 20 seconds of processor time."""
    peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    before, begun = peak(), time.process_time()
    yield
    assert peak() - before < 300 << 10
    assert time.process_time() - begun < 20
