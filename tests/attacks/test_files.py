"""Nothing of anybody else's is overwritten, removed or written through a link."""

import ast
import os
import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from callback_cases import EachBlock
from tests.attacks.conftest import TINY

import innerloop
from innerloop import Learner
from innerloop.cli import main
from innerloop.config.presets.registry import preset
from innerloop.config.schema import Config
from innerloop.errors import InnerloopError
from innerloop.io.files import check_output_path, new_output, replacing
from innerloop.io.folders import OutputFolder
from innerloop.tasks.datasets import ClassArrays, memmap
from innerloop.training.storage import checkpoint, checkpoint_manager, weights
from innerloop.training.storage.run_directory import NotWritten, RunFolder
from innerloop.training.train import train

TRAIN = ("train", "sinusoid-maml", *TINY)


def tiny(meta_steps: int, checkpoint_every: int = 4) -> Config:
    config = preset("sinusoid-maml")
    outer = replace(
        config.outer, meta_steps=meta_steps, log_every=2, checkpoint_every=checkpoint_every, meta_batch=2
    )
    outer = replace(outer, validate_every=0, snapshots=0)
    return replace(config, outer=outer, model=replace(config.model, hidden=(4,)))


DIVERGE = ("--inner.learning-rate", "1000", "--inner.steps", "5")


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Somebody's work, in which commands are called."""
    folder = tmp_path / "project"
    (folder / "data").mkdir(parents=True)
    for name in ("main.py", "data/results.csv", "data/notes.txt"):
        (folder / name).write_text(f"years of work: {name}")
    monkeypatch.chdir(folder)
    return folder


@pytest.mark.parametrize("folder", ["runs/../..", "runs/../data", ".", "data/../runs/x/../../.."])
def test_diverged_run_removes_only_its_own_files(project: Path, folder: str, refused, contents):
    before = contents(project.parent)
    assert "diverged" in refused(*TRAIN, *DIVERGE, "--folder", folder)
    assert contents(project.parent) == before


def test_user_files_in_failed_run_folder_are_kept(project: Path, contents, monkeypatch):
    """Beside the run's own files, and in place of one of them."""

    def visited(*arguments: object, **more: object) -> None:
        run = project / "runs" / "x"
        (run / "tensorboard" / "notes.txt").write_text("mine")
        (run / "config.json").unlink()
        (run / "config.json").write_text("mine")
        raise InnerloopError("train", "the run diverged")

    monkeypatch.setattr("innerloop.training.diagnosis.nan_diagnosis.check_finite", visited)
    with pytest.raises(InnerloopError, match="diverged"):
        train(tiny(8), "runs/x")
    left = contents(project / "runs")
    assert set(left) == {"x", "x/config.json", "x/tensorboard", "x/tensorboard/notes.txt"}


def test_run_resumes_after_first_checkpoint_hits_full_disk(project: Path, monkeypatch):
    with monkeypatch.context() as full:
        full.setattr("shutil.disk_usage", lambda path: type("usage", (), {"free": 100}))
        with pytest.raises(NotWritten, match="then `resume`"):
            train(tiny(8), "runs/x")
    assert train(None, "runs/x", resume=True).facts["meta_steps"] == 8


NAMES = [
    "exp [2024]",
    "a'b\"c",
    "two\nlines",
    "$HOME",
    " x ",
    "q?*",
    "back\\slash",
    "é→",
    os.fsdecode(b"\xff\xfe"),
]


@pytest.mark.parametrize("names", [NAMES[:-1], NAMES[-1:]], ids=["text", "bytes"])
def test_runs_work_in_folders_with_unusual_names(tmp_path: Path, names: list[str]):
    folder = tmp_path.joinpath(*names, "run")
    train(tiny(4), folder)
    (folder / "weights.safetensors").unlink()
    seen: list[int] = []
    result = train(
        None, folder, resume=True, callbacks=[EachBlock(lambda progress: seen.append(progress.step))]
    )
    assert (result.facts["meta_steps"], seen) == (4, [])  # nothing was lost, so nothing was trained again
    (folder / "weights.safetensors").unlink()
    shutil.rmtree(folder / "checkpoints" / "4")
    manager = checkpoint_manager.manager(folder / "checkpoints")
    manager.close()
    assert manager.all_steps() == []
    assert train(None, folder, resume=True).facts["meta_steps"] == 4
    assert main(["evaluate", str(folder), "--tasks", "2", "--json"]) == 0


def test_first_checkpoint_is_verified_by_reading(tmp_path: Path, monkeypatch):
    def unreadable(*arguments: object) -> None:
        raise InnerloopError("checkpoint 4", "cannot be read")

    monkeypatch.setattr(checkpoint, "read", unreadable)
    with pytest.raises(InnerloopError, match="checkpoint 4: cannot be read"):
        train(tiny(8), tmp_path / "run")


LINKED = [
    "lock",
    "checkpoints",
    "snapshots",
    "tensorboard",
    "clock.json",
    "metrics.jsonl",
    "weights.safetensors",
]


@pytest.mark.parametrize("name", LINKED)
def test_links_in_a_run_folder_are_not_followed(base: Path, tmp_path: Path, name: str, refused, contents):
    """On resuming a run, and on starting one in a folder that holds the link already."""
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "file").write_text("precious")
    target = outside if name in ("checkpoints", "snapshots", "tensorboard") else outside / "file"
    run = tmp_path / "run"
    shutil.copytree(base, run)
    for step in (run / "checkpoints").iterdir():  # what is resumed has something to do
        shutil.rmtree(step)
    (run / name).unlink() if (run / name).is_file() else shutil.rmtree(run / name, ignore_errors=True)
    (run / name).symlink_to(target)
    new = tmp_path / "new"
    new.mkdir()
    (new / name).symlink_to(target)
    before = contents(outside)
    main(["train", "--resume", str(run)])  # what is never opened may be passed over
    assert contents(outside) == before
    assert name in refused(*TRAIN, "--folder", new)
    assert (contents(outside), os.listdir(new)) == (before, [name])


@pytest.mark.parametrize(
    "name", ["weights.safetensors", "lock", "environment.json", "checkpoints/7/x", "metrics.jsonl"]
)
def test_new_run_rejects_folder_with_existing_files(tmp_path: Path, name: str, refused, contents):
    (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / name).write_text("precious")
    before = contents(tmp_path)
    assert re.search("did not write|was not written by", refused(*TRAIN, "--folder", tmp_path))
    assert contents(tmp_path) == before


@pytest.fixture
def own(base: Path, tmp_path: Path) -> Path:
    """A copy of the run that may be written into."""
    shutil.copytree(base, tmp_path / "own")
    return tmp_path / "own"


@pytest.mark.usefixtures("undrawn")
def test_report_replaces_only_its_own_page(own: Path, tmp_path: Path, refused, contents):
    """Nor does it draw figures through links."""
    words, outside = ("report", own, "--tasks", "2"), tmp_path / "outside"
    outside.mkdir()
    (outside / "mine.tex").write_text("my thesis")
    assert "already exists; give another name, or --overwrite" in refused(
        *words, "--out", outside / "mine.tex"
    )
    (own / "figures").mkdir()
    (own / "figures" / "adaptation.png").symlink_to(outside / "mine.tex")
    (own / "figures" / "training.png").symlink_to(outside / "new.png")
    before = contents(outside)
    for name in ("weights.safetensors", "config.json"):
        wrong = refused(*words, "--out", own / name, "--overwrite")
        assert "is an input, so it is not overwritten" in wrong
    assert "is a folder" in refused(*words, "--out", outside, "--overwrite")
    with pytest.warns(UserWarning, match="leads through a link"):
        assert main([str(word) for word in words]) == 0
    assert contents(outside) == before
    OutputFolder(own).check("report.html")  # it may be made again
    (own / "report.html").write_text("annotated by hand")
    assert "was changed since" in refused(*words)
    OutputFolder(own, overwrite=True).check("report.html")


def test_predictions_never_replace_the_points(own: Path, tmp_path: Path, refused):
    points = tmp_path / "points.csv"
    points.write_text("x,y\n0,1\n1,2\n2,3\n3,\n")
    text = points.read_text()
    assert "is an input" in refused("adapt", own, points, "--csv", points)
    assert "is an input" in refused("adapt", own, points, "--csv", points, "--overwrite")
    assert points.read_text() == text
    assert main(["adapt", str(own), str(points), "--csv", str(tmp_path / "out.csv")]) == 0
    assert (tmp_path / "out.csv").read_text().startswith("x,y")


@pytest.mark.usefixtures("undrawn")
def test_analysis_replaces_only_its_own_files(own: Path, tmp_path: Path, refused, contents):
    out = tmp_path / "out"
    out.mkdir()
    (out / "index.html").write_text("my home page")
    (out / "results.json").write_text("[]")
    before = contents(out)
    words = ("analyze", own, "--only", "steps", "--tasks", "2", "--out", out)
    assert "was not written by innerloop" in refused(*words)
    assert {k: v for k, v in contents(out).items() if k in before} == before
    for extra in ((), ("--overwrite",)):  # what was measured is kept, and written again
        assert main([*map(str, words[:-1]), str(out if extra else tmp_path / "fresh"), *extra]) == 0
    for name in ("results.json", "index.html", "steps.csv", "figures/steps.png"):
        OutputFolder(out).check(name)


def test_save_adapted_does_not_overwrite_by_default(tmp_path: Path):
    learner = Learner.from_pretrained("sinusoid-maml").fit(np.ones((3, 1), np.float32), np.ones((3, 1)))
    path = tmp_path / "patient.safetensors"
    learner.save_adapted(path)
    kept = path.read_bytes()
    with pytest.raises(InnerloopError, match="already exists; give another name, or `overwrite`"):
        learner.save_adapted(path)
    assert path.read_bytes() == kept
    learner.save_adapted(path, overwrite=True)


def test_memmap_save_does_not_overwrite_by_default(tmp_path: Path):
    data = ClassArrays.from_lists([np.zeros((2, 2, 2, 1), np.uint8)], ["a"])
    (tmp_path / "x.json").write_text("precious")
    with pytest.raises(InnerloopError, match="x.json: already exists"):
        memmap.save(data, tmp_path / "x.npy")
    assert (tmp_path / "x.json").read_text() == "precious"
    memmap.save(data, tmp_path / "x.npy", overwrite=True)


def test_output_files_are_written_atomically(tmp_path: Path):
    path = tmp_path / "x"
    with pytest.raises(ZeroDivisionError), replacing(path) as draft:
        draft.write_text(f"half {1 / 0}")
    assert os.listdir(tmp_path) == []
    with pytest.raises(InnerloopError, match="already exists"), new_output(path, overwrite=False):
        path.write_text("theirs, a moment ago")
    assert (os.listdir(tmp_path), path.read_text()) == (["x"], "theirs, a moment ago")
    with pytest.raises(InnerloopError, match="is not a regular file"):
        check_output_path("/dev/null", overwrite=True)
    with pytest.raises(
        InnerloopError, match="/proc/x.html: cannot be written .*; give a path in a folder that"
    ):
        check_output_path("/proc/x.html", overwrite=False)  # where even the write access of root is of no use
    with (
        pytest.raises(InnerloopError, match="cannot be written"),
        new_output(path / "y" / "z", overwrite=True),
    ):
        pass
    folder = OutputFolder(tmp_path)
    (tmp_path / ".innerloop.json").write_text('{"x": 3}')
    with pytest.raises(InnerloopError, match="was not written by innerloop"):
        OutputFolder(tmp_path).check("x")
    assert folder.path == tmp_path


def test_checkpoint_rotation_keeps_user_files(tmp_path: Path):
    """Notes beside the arrays of a checkpoint stay when it is rotated away."""
    notes = tmp_path / "run" / "checkpoints" / "2" / "notes.txt"

    def visit(progress: object) -> None:
        if (notes.parent / "_CHECKPOINT_METADATA").exists():
            notes.write_text("mine")

    train(tiny(16, checkpoint_every=2), tmp_path / "run", callbacks=[EachBlock(visit)])
    kept = [path for path in (tmp_path / "run").rglob("*") if path.name == "notes.txt"]
    assert [path.read_text() for path in kept] == ["mine"]
    assert not list((tmp_path / "run" / "checkpoints" / "deleted").rglob("_METADATA"))


WRITERS = {
    "rmtree",
    "unlink",
    "rename",
    "write_text",
    "write_bytes",
    "mkdir",
    "makedirs",
    "touch",
    "symlink_to",
}
WRITERS |= {"rmdir", "savefig", "save_file", "symlink", "truncate", "removedirs", "hardlink_to", "mkdtemp"}
REASONED = {
    (
        "training/storage/checkpoint_manager.py",
        "unlink",
    ): "files of Orbax, by their names, among old checkpoints",
    ("training/storage/checkpoint_manager.py", "symlink"): "in a temporary folder of its own",
    ("training/storage/lock.py", "truncate"): "the open lock file, after its content was checked",
    ("io/safetensors_writer.py", "save_file"): "into a draft",
    ("report/figure_files.py", "savefig"): "into memory",
    ("report/figure_files.py", "write_bytes"): "into a draft",
    ("learner/exporting/formats.py", "write_bytes"): "into a draft",
    ("cli/adapt.py", "write_text"): "into a draft",
    ("cli/report.py", "write_text"): "into a draft",
    ("report/run_page.py", "write_text"): "into a draft",
    ("tasks/io/array_files.py", "write_text"): "into a draft",
    ("tasks/io/array_files.py", "unlink"): "the sidecar of an array that is being replaced",
}


def calls(path: Path) -> set[str]:
    """Names of the methods called in a file that write, move or remove, and `open` in a mode that writes."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if not isinstance(node, ast.Call):
            continue
        name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        modes = [
            a.value for a in [*node.args, *(k.value for k in node.keywords)] if isinstance(a, ast.Constant)
        ]
        if name == "open" and any(
            isinstance(m, str) and re.fullmatch("[rwax+bt]*[wax+][rwax+bt]*", m) for m in modes
        ):
            found.add("open for writing")
        if (
            name == "replace"
            and isinstance(node.func, ast.Attribute)
            and ast.unparse(node.func.value) == "os"
        ):
            found.add("os.replace")
        found |= {name} & WRITERS
    return found


def test_source_writes_files_only_through_io_modules():
    root = Path(innerloop.__file__).parent
    found = {(str(p.relative_to(root)), name) for p in root.rglob("*.py") for name in calls(p)}
    found = {(file, name) for file, name in found if file not in ("io/files.py", "io/folders.py")}
    allowed = set(REASONED) | {
        (
            "training/storage/checkpoint.py",
            "os.replace",
        ),  # a damaged checkpoint is moved within the run's folder
        ("training/storage/lock.py", "open for writing"),  # opened without following links, and checked
        ("tasks/io/array_files.py", "open for writing"),  # a draft
        ("cli/streams.py", "open for writing"),  # os.devnull, in place of a stream that is closed
    }
    assert found <= allowed, sorted(found - allowed)


def test_run_weights_store_preset_name(base: Path):
    assert weights.load(RunFolder(base).weights)[1].name == "sinusoid-maml"
