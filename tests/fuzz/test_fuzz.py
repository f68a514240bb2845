"""The short form of `make fuzz`: some hundred hostile inputs for every reader, and what they once found."""

import ast
import random
from pathlib import Path

import pytest
from tests.fuzz.guard import Guard
from tests.fuzz.mutate import BYTES, mutated
from tests.fuzz.readers import READERS
from tests.fuzz.run import fuzz

from innerloop.cli.user_examples import read_points
from innerloop.config.serialization import from_json
from innerloop.errors import InnerloopError
from innerloop.io.untrusted import parse_json, read_object, read_text
from innerloop.tasks.datasets import mini_imagenet
from innerloop.tasks.io import images
from innerloop.tasks.io.images import open_image

# Command lines are read in this process and set its cache; writing there is none of the readers' business.
pytestmark = pytest.mark.usefixtures("no_compilation_cache")

SOURCE = Path(__file__).resolve().parents[2] / "src"
INPUTS = {"checkpoints": 60, "sizes in configs": 40, "picture folders": 150}


@pytest.fixture(scope="module")
def guard() -> Guard:
    return Guard()


@pytest.mark.parametrize("reader", READERS)
def test_reader_accepts_or_rejects_hostile_inputs(reader: str, guard: Guard, monkeypatch: pytest.MonkeyPatch):
    """Read or refused; no other error, nothing written elsewhere, nothing run, memory bounded."""
    from innerloop.cli import quickstart, train
    from innerloop.tasks.datasets import cifar

    for module, names in ((train, ("train_into", "start_jax")), (quickstart, ("run",))):
        for name in names:  # the readers replace them: they come back afterwards
            monkeypatch.setattr(module, name, getattr(module, name))
    for name in ("CLASSES", "PER_CLASS", "PIXELS"):
        monkeypatch.setattr(cifar, name, getattr(cifar, name))
    for name in ("INNERLOOP_CACHE", "INNERLOOP_DATA"):
        monkeypatch.delenv(name, raising=False)
    outcome = fuzz(reader, range(INPUTS.get(reader, 300)), guard)
    assert outcome.findings == {}
    assert outcome.inputs == outcome.read + outcome.refused == INPUTS.get(reader, 300)
    assert outcome.read > 0


def test_guard_reports_outside_writes_and_subprocesses(guard: Guard, tmp_path: Path):
    """Writing elsewhere, running a program, making a link out of the folder."""
    import os
    import subprocess

    inside, outside = tmp_path / "in", tmp_path / "out"
    inside.mkdir()
    with guard.watching(inside) as seen:
        (inside / "x").write_text("")
        (inside / "link").symlink_to("/etc/passwd")
        assert seen == []
        outside.write_text("")
        os.rename(outside, inside / "y")
        subprocess.run(["true"], check=True)
    assert [event.split()[0] for event in seen] == ["open", "os.rename", "subprocess.Popen"]


def test_unexpected_reader_error_is_a_finding(guard: Guard, monkeypatch: pytest.MonkeyPatch):
    """Else the fuzzer would prove nothing."""

    def opened(folder: Path):
        def attempt(draw: random.Random) -> None:
            if draw.random() < 0.5:
                raise KeyError("x")
            raise InnerloopError("x", "is refused")

        return attempt

    monkeypatch.setitem(READERS, "broken", opened)
    outcome = fuzz("broken", range(50), guard)
    assert list(outcome.findings) == ["KeyError"]
    assert 0 < outcome.refused < 50


def test_mutations_are_deterministic_given_seed():
    seeds = [bytes(range(100)), b'{"a": 1}']
    for mutation in BYTES:
        once, again = (mutated(random.Random("x 3"), seeds, [mutation]) for _ in range(2))
        assert once == again


def imported(tree: ast.AST) -> set[str]:
    """Names of the modules that a source file imports."""
    plain = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    return plain | {node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}


def test_source_uses_no_pickle_eval_or_shell():
    """No import of pickle or its kin, no eval or exec, no np.load without `allow_pickle=False`, no shell.

    Programs are started in three places alone, git and this command itself, by fixed words. A `Learner` tells Python's
    pickle, where a user calls that, how it is pickled; no file is unpickled.
    """
    never = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal", "subprocess"}
    for path in SOURCE.rglob("*.py"):
        tree = ast.parse(path.read_text())
        starts = {"subprocess"} if path.name in ("provenance.py", "distributed.py", "at_once.py") else set()
        own = path.parent.name == "learner" and path.name in ("pickling.py", "estimator.py")
        pickles = {"pickle"} if own else set()
        assert not {name.split(".")[0] for name in imported(tree)} & (never - starts - pickles), path
        assert path.read_text().count("pickle.load") <= (path.name == "estimator.py"), path
        assert "shell=True" not in path.read_text(), path
        for call in (node for node in ast.walk(tree) if isinstance(node, ast.Call)):
            name = ast.unparse(call.func)
            assert name not in ("eval", "exec", "os.system"), path
            if name in ("np.load", "numpy.load"):
                assert "allow_pickle=False" in ast.unparse(call), path


FOUND = [
    (b"filename,label\na\xff.jpg,x\n", "is not a csv text file"),
    (b"filename,label\na.jpg\n", "must have a file name and a label"),
    (b"filename,label\n" + b"a" * 300 + b",x\n", "must list plain file names"),
    (b"filename,label\n" + b'"' + b"a" * 200_000 + b'",x\n', "is not a csv text file"),
]


@pytest.mark.parametrize(("content", "message"), FOUND)
def test_malformed_tables_found_by_fuzzing_raise(tmp_path: Path, content: bytes, message: str):
    (tmp_path / "x.csv").write_bytes(content)
    with pytest.raises(InnerloopError, match=message):
        mini_imagenet._table(tmp_path / "x.csv", tmp_path)


def test_malformed_text_found_by_fuzzing_raises(tmp_path: Path):
    (tmp_path / "x.csv").write_text("x,y\n1e39,2\n3,\n")
    with pytest.raises(InnerloopError, match="line 2: must be a finite number, got '1e39'"):
        read_points(tmp_path / "x.csv")
    for text in (
        '{"inner": {"learning_rate": NaN}}',
        '{"inner": {"learning_rate": 1e999}}',
        '{"name": "\\ud800"}',
    ):
        with pytest.raises(InnerloopError, match="has the wrong value|is not JSON"):
            from_json(text)
    with pytest.raises(InnerloopError, match="nested too deeply"):
        parse_json("[" * 100_000, "x")
    with pytest.raises(InnerloopError, match="is not JSON"):
        parse_json("9" * 5000, "x")
    (tmp_path / "x.json").write_bytes(b"\xff")
    with pytest.raises(InnerloopError, match="is not UTF-8 text"):
        read_object(tmp_path / "x.json")
    (tmp_path / "x.json").write_bytes(b"[]")
    with pytest.raises(InnerloopError, match="must hold one JSON object, got list"):
        read_object(tmp_path / "x.json")
    with pytest.raises(InnerloopError, match="cannot be read"):
        read_text(tmp_path)


ROWS = (
    "89504e470d0a1a0a0000000d49484452000000070080000908000000008808eca50000005349444154789c014800b7ff017e"
    "569366ede0e302dec80d4de5d6f10425fc3402da26c6023422804acf1be6021ee4551d4cf238016ed18fb31c201304f9f102"
    "05d3aef001bb0edbac0e4aad026cb61b144ffdefaf2b204792761a190000000049454e44ae426082"
)


def test_oversized_image_raises():
    """A hundred bytes that promise 7 x 8 388 617 pixels."""
    with pytest.raises(InnerloopError, match=f"a side of more than {images.SIDE} pixels"):
        open_image(bytes.fromhex(ROWS), "x")
