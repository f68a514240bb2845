"""Commands called in this process, and what they may not touch."""

import hashlib
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from innerloop.cli import main

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


@pytest.fixture(scope="session", autouse=True)
def compile_quickly(quickly):
    """Runs are short here; one compiler setting for all of them keeps their programs."""
    with quickly():
        yield


@pytest.fixture(scope="session")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run that tests may read."""
    folder = tmp_path_factory.mktemp("base") / "base"
    assert main(["train", "sinusoid-maml", *TINY, "--folder", str(folder)]) == 0
    return folder


@pytest.fixture
def command(capsys):
    """`command(*words) -> (exit code, stdout, stderr)`."""

    def run(*words):
        capsys.readouterr()
        code = main([str(word) for word in words])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run


@pytest.fixture
def complaint(command):
    """The one sentence on stderr of a command that must fail with code 2, and say nothing else."""

    def run(*words):
        code, out, err = command(*words)
        assert (code, out) == (2, "")
        assert err.startswith("innerloop: ")
        assert err.count("\n") == 1
        return err

    return run


@pytest.fixture
def refused(command) -> Callable[..., str]:
    """The same, of a command that may have said something on stdout before."""

    def run(*words: object) -> str:
        code, _, err = command(*words)
        assert (code, err.count("\n"), "Traceback" in err) == (2, 1, False), err
        return err

    return run


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
