"""A run on one's own pictures is used from any working directory, and adapts once the pictures are gone."""

import json
import shutil
from pathlib import Path

import numpy as np
import PIL.Image
import pytest

from innerloop.cli import main
from innerloop.training.storage.run_directory import RunFolder

SHORT = (
    "glyphs-5way-1shot-maml",
    "--data.dataset",
    "folder",
    "--data.folder",
    "pictures",
    "--data.ways",
    "2",
)
SHORT += ("--model.kind", "mlp", "--model.hidden", "4", "--outer.meta-steps", "2", "--outer.log-every", "2")
SHORT += ("--outer.meta-batch", "2", "--evaluation.validation-tasks", "2", "--evaluation.queries", "1")


def drawn(root, classes, side):
    """Two pictures of each class, of one brightness."""
    for number, name in enumerate(classes):
        (root / name).mkdir(parents=True)
        for shade in (0, 9):
            colour = 25 * number + shade
            PIL.Image.new("L", (side, side), colour).save(root / name / f"{shade}.png")


@pytest.fixture(scope="module")
def place(tmp_path_factory, quickly):
    """Runs with `--data.size 8` and without, on pictures that were named from here and moved away after."""
    root = tmp_path_factory.mktemp("place")
    drawn(root / "pictures", "abcdefghij", 8)
    drawn(root / "mine/support", "xy", 8)
    drawn(root / "mine/query", ["new"], 8)
    for file in (root / "mine/query/new").iterdir():
        file.rename(root / "mine/query" / file.name)
    with pytest.MonkeyPatch.context() as patch, quickly():
        patch.chdir(root)
        assert main(["train", *SHORT, "--folder", "sized", "--data.size", "8"]) == 0
        assert main(["train", *SHORT, "--folder", "as-they-are"]) == 0
    return root


@pytest.fixture
def gone(place):
    """The runs, without the pictures that they were trained on."""
    shutil.move(place / "pictures", place / "elsewhere")
    yield place
    shutil.move(place / "elsewhere", place / "pictures")


def test_a_run_is_measured_from_anywhere(command, place, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert Path(RunFolder(place / "sized").config().data.folder) == (place / "pictures").resolve()
    code, out, err = command("evaluate", place / "sized", "--tasks", 2, "--json")
    assert (code, err) == (0, "")
    assert json.loads(out)["tasks"] == 2


@pytest.mark.parametrize("run", ["sized", "as-they-are"])
def test_a_run_adapts_once_its_pictures_are_gone(command, gone, run):
    code, out, err = command("adapt", gone / run, gone / "mine", "--json")
    assert (code, err) == (0, "")
    assert json.loads(out)["classes"] == ["x", "y"]


def resized(place, tmp_path, side):
    """The same own pictures, of another size."""
    for path in (place / "mine").rglob("*.png"):
        target = tmp_path / "mine" / path.relative_to(place / "mine")
        target.parent.mkdir(parents=True, exist_ok=True)
        PIL.Image.fromarray(np.asarray(PIL.Image.open(path).resize((side, side)))).save(target)
    return tmp_path / "mine"


def test_where_only_the_training_pictures_tell_the_size(command, complaint, gone, tmp_path):
    """Without `--data.size`, they are looked at where they are; a model that cannot take another size says so."""
    mine = resized(gone, tmp_path, 16)
    code, out, _ = command("adapt", gone / "as-they-are", mine, "--data-folder", gone / "elsewhere", "--json")
    assert code == 0
    answers = json.loads(out)["predictions"]
    same = json.loads(command("adapt", gone / "as-they-are", gone / "mine", "--json")[1])["predictions"]
    for a, b in zip(answers, same, strict=True):
        assert a["probability"] == pytest.approx(b["probability"], abs=1e-5)
    assert "does not take such inputs" in complaint("adapt", gone / "as-they-are", mine)
    assert "existing folder, got 'no'" in complaint(
        "adapt", gone / "as-they-are", mine, "--data-folder", "no"
    )
