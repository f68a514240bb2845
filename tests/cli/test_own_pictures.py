"""A run on one's own pictures is used from any working directory, and adapts once the pictures are gone."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import jax
import numpy as np
import PIL.Image
import pytest

from innerloop.cli import main
from innerloop.cli.train import _start_in_words
from innerloop.cli.train_arguments import parse_with_preset
from innerloop.cli.train_plan import plan
from innerloop.config.presets.registry import preset
from innerloop.engine.pytree import paths
from innerloop.errors import InnerloopError
from innerloop.io.text import with_interval
from innerloop.report import examples, measurements
from innerloop.tasks.datasets import image_folder
from innerloop.training.measure import measure
from innerloop.training.recording import contact_sheet
from innerloop.training.storage import weights
from innerloop.training.storage.run_directory import RunFolder
from innerloop.training.trained import load_trained, started_from

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


def test_evaluate_works_from_any_working_directory(command, place, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert Path(RunFolder(place / "sized").config().data.folder) == (place / "pictures").resolve()
    code, out, err = command("evaluate", place / "sized", "--tasks", 2, "--json")
    assert (code, err) == (0, "")
    assert json.loads(out)["tasks"] == 2


@pytest.mark.parametrize("run", ["sized", "as-they-are"])
def test_adapt_works_without_training_images(command, gone, run):
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


def test_image_size_is_inferred_from_training_images(command, complaint, gone, tmp_path):
    """Without `--data.size`, they are looked at where they are; a model that cannot take another size says so."""
    mine = resized(gone, tmp_path, 16)
    code, out, _ = command("adapt", gone / "as-they-are", mine, "--data-folder", gone / "elsewhere", "--json")
    assert code == 0
    answers = json.loads(out)["predictions"]
    same = json.loads(command("adapt", gone / "as-they-are", gone / "mine", "--json")[1])["predictions"]
    for a, b in zip(answers, same, strict=True):
        assert a["probability"] == pytest.approx(b["probability"], abs=1e-5)
    assert "does not accept these inputs" in complaint("adapt", gone / "as-they-are", mine)
    assert "existing folder, got 'no'" in complaint(
        "adapt", gone / "as-they-are", mine, "--data-folder", "no"
    )


def test_small_test_class_fails_before_training(refused, place, tmp_path):
    """Before anything is compiled or written; the option that it names leaves the class out."""
    shutil.copytree(place / "pictures", tmp_path / "pictures")
    test = image_folder.load(tmp_path / "pictures").test.names[0]
    (tmp_path / "pictures" / test / "9.png").unlink()
    words = [tmp_path / "pictures" if word == "pictures" else word for word in SHORT]
    said = refused("train", *words, "--folder", tmp_path / "run")
    assert f"test classes: 1 shot and 1 query need 2 examples of every class, got 1 of '{test}'" in said
    hint = "lower --data.shots or --evaluation.queries, or leave out small classes with --data.min-examples 2"
    assert hint in said
    assert not (tmp_path / "run").exists()


def test_too_few_classes_error_states_the_split(refused, place, tmp_path):
    words = (
        "train",
        "pictures-5way-1shot-maml",
        "--folder",
        tmp_path / "run",
        "--data.queries",
        1,
        "--data.folder",
    )
    told = refused(*words, place / "pictures")
    assert "divided into 6 for training, 2 for validation and 2 for test: lower --data.ways or add" in told
    (tmp_path / "empty").mkdir()
    told = refused(*words, tmp_path / "empty")
    assert told.startswith(f"innerloop: --data.folder: {tmp_path / 'empty'} contains no class folders;")


def test_contact_sheet_is_written_before_training(command, place, tmp_path):
    """Every picture has one brightness, which the sheet shows beside its class; grey on grey paper is white."""
    words = [place / "pictures" if word == "pictures" else word for word in SHORT]
    code, out, _ = command("train", *words, "--data.size", 8, "--folder", tmp_path / "run")
    assert code == 0
    shown = f"Pictures: {tmp_path / 'run' / 'pictures.png'} shows what was loaded."
    assert out.index(shown) < out.index("meta-steps, ")
    assert "glyphs-5way-1shot-maml on pictures: maml" in out
    assert "Pictures" not in command("reproduce", tmp_path / "run")[1]  # in a folder that is not kept
    sheet = np.asarray(PIL.Image.open(tmp_path / "run" / "pictures.png").convert("L"))
    first = contact_sheet.WORDS + contact_sheet.CELL // 2
    second = first + contact_sheet.CELL + contact_sheet.GAP
    splits = image_folder.load(place / "pictures")
    top = contact_sheet.GAP
    for part in splits:
        top += contact_sheet.LINE
        for index in range(part.classes):
            middle = top + contact_sheet.CELL // 2
            assert [sheet[middle, first], sheet[middle, second]] == part.rows(index)[:, 4, 4, 0].tolist()
            top += contact_sheet.CELL + contact_sheet.GAP
    assert sheet.shape[0] == top
    refused = command("train", *words, "--folder", tmp_path / "run")[2]
    assert "already holds a run" in refused


@pytest.mark.usefixtures("undrawn")
def test_report_names_user_data_and_classes(command, place, tmp_path):
    code, _, _ = command("report", place / "sized", "--tasks", 4, "--out", tmp_path / "page.html")
    page = (tmp_path / "page.html").read_text()
    assert code == 0
    assert "<h1>Images of pictures, 2-way 1-shot: MAML</h1>" in page
    trained = load_trained(place / "sized")
    for episode in examples.episodes(measurements.gather([trained], 4)[0].runs[0]):
        letters = [f"{'AB'[i]}: {name}" for i, name in enumerate(episode.names)]
        assert " &nbsp; ".join(letters) in page
        for label, name in enumerate(episode.names):
            shades = {25 * "abcdefghij".index(name), 25 * "abcdefghij".index(name) + 9}
            (row,) = np.flatnonzero(episode.support_labels == label)
            assert round(255 * float(episode.support[row].mean())) in shades


ANIL = "cifar-fs-5way-5shot-anil"


def test_preset_start_is_not_inherited_by_other_data(tmp_path):
    """The preset's own start, CIFAR-FS, is kept for CIFAR-FS and for those who name it."""
    start = preset(ANIL).model.start
    assert start == "cifar-fs-5way-1shot-anil"
    pictures = ("--data.dataset", "folder", "--data.folder", str(tmp_path))
    (tmp_path / "mine.safetensors").touch()
    mine = str(tmp_path / "mine.safetensors")
    for words, expected in (
        ([ANIL], start),
        ([ANIL, *pictures], ""),
        ([ANIL, *pictures, "--model.start", start], start),
        ([ANIL, *pictures, "--model.start", mine], mine),
        (["--model.start", "cifar-fs-5way-1shot-maml", ANIL, *pictures], "cifar-fs-5way-1shot-maml"),
        ([ANIL, "--model.start", ""], ""),
    ):
        arguments = parse_with_preset(words)
        assert arguments.model.start == expected
        config = plan(arguments, words)[1]
        assert config is not None
        assert config.model.start == expected


def test_image_folder_does_not_inherit_preset_rotations():
    """Nor do they keep other settings of the preset's data set; a setting that is given is kept."""
    own = ("--data.dataset", "folder", "--data.folder", "pictures")
    given = lambda *words: parse_with_preset(words).data
    assert given("omniglot-5way-1shot-maml").rotations
    assert not given("omniglot-5way-1shot-maml", *own).rotations
    assert given("omniglot-5way-1shot-maml", *own, "--data.rotations").rotations
    assert given(ANIL, "--data.dataset", "glyphs").size == 0


def test_start_in_words_describes_initial_weights():
    config = preset(ANIL)
    own = replace(config, data=replace(config.data, dataset="folder"), model=replace(config.model, start=""))
    assert "from the trained weights of cifar-fs-5way-1shot-anil" in _start_in_words(config)
    told = _start_in_words(own)
    assert "Starts from random weights: cifar-fs-5way-1shot-anil, from which" in told
    assert "600 meta-steps, was trained on CIFAR-FS" in told
    assert _start_in_words(preset("sinusoid-maml")) == ""


@pytest.fixture(scope="module")
def continued(place, quickly):
    """A run that starts from the weights of another."""
    with pytest.MonkeyPatch.context() as patch, quickly():
        patch.chdir(place)
        words = ("--folder", "second", "--data.size", "8", "--model.start", "sized", "--seed", "7")
        assert main(["train", *SHORT, *words]) == 0
    return place / "second"


@pytest.mark.usefixtures("undrawn")
def test_report_uses_start_model_as_baseline(command, place, continued):
    beginning = weights.load(place / "sized" / "weights.safetensors")[0]
    trained = load_trained(continued)
    started = started_from(trained)
    for name, leaf in zip(paths(started.params), jax.tree.leaves(started.params), strict=True):
        np.testing.assert_array_equal(leaf, beginning[name])
    code, _, err = command("report", continued, "--tasks", 4, "--out", place / "report.html")
    assert (code, err) == (0, "")
    page = (place / "report.html").read_text().replace("&nbsp;", " ")
    found = measure(started, num_tasks=4)
    assert "start: sized" in page
    assert (
        f"Training started from sized, which reaches {with_interval(found.value, found.ci95, 'accuracy')}"
        in page
    )
    assert "untrained" in page


def test_missing_start_is_loaded_from_first_snapshot(command, place, continued, tmp_path):
    """Without one, the report says that it lacks it."""
    shutil.copytree(continued, tmp_path / "second")
    (place / "sized").rename(place / "moved")
    try:
        value = measure(started_from(load_trained(continued)), num_tasks=4).value
        shutil.rmtree(tmp_path / "second" / "snapshots")
        with pytest.warns(UserWarning, match="omits the model that training started from .*sized"):
            (group,) = measurements.gather([load_trained(tmp_path / "second")], 4)
    finally:
        (place / "moved").rename(place / "sized")
    assert [baseline.label for baseline in group.baselines] == ["untrained"]
    (group,) = measurements.gather([load_trained(tmp_path / "second")], 4)
    assert [baseline.label for baseline in group.baselines] == ["untrained", "start: sized"]
    assert group.baselines[1].value == value
    assert group.baselines[1].measurement.trained_meta_steps == 0


def test_changed_start_is_rejected_as_baseline(place, continued, tmp_path):
    shutil.copytree(continued, tmp_path / "second")
    shutil.rmtree(tmp_path / "second" / "snapshots")
    record = json.loads((tmp_path / "second" / "environment.json").read_text())
    record["data"]["start"] = "0" * 64
    (tmp_path / "second" / "environment.json").write_text(json.dumps(record))
    with pytest.raises(InnerloopError, match="has changed since the run began"):
        started_from(load_trained(tmp_path / "second"))
