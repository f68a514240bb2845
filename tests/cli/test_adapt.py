import json
import shutil
from dataclasses import replace

import jax
import numpy as np
import PIL.Image
import pytest

from innerloop.cli.export_network import _class_folders
from innerloop.cli.user_examples import read_pictures
from innerloop.cli.user_fit import _resolve_ink
from innerloop.config.presets.registry import preset
from innerloop.config.schema import Config, DataConfig
from innerloop.errors import InnerloopError
from innerloop.tasks.datasets import glyphs
from innerloop.training.experiments.models import fresh_model
from innerloop.training.storage import weights


@pytest.fixture(scope="module")
def letters(tmp_path_factory):
    """Three letters, drawn dark on light; the new pictures are the labelled ones again."""
    root, classes = tmp_path_factory.mktemp("letters"), glyphs.load().test
    for number, name in ((5, "be"), (60, "zhe"), (140, "shin")):
        (root / "support" / name).mkdir(parents=True)
        (root / "query").mkdir(exist_ok=True)
        picture = PIL.Image.fromarray(255 - classes.rows(number)[0][:, :, 0])
        picture.save(root / "support" / name / "1.png")
        picture.resize((60, 60)).save(root / "query" / f"{name}.png")
    return root


def inverted(letters, root):
    """The same drawings, light on dark."""
    for path in letters.rglob("*.png"):
        target = root / path.relative_to(letters)
        target.parent.mkdir(parents=True, exist_ok=True)
        PIL.Image.fromarray(255 - np.asarray(PIL.Image.open(path))).save(target)
    return root


def test_adapt_labels_new_images_correctly(command, glyph_run, letters, tmp_path):
    code, out, _ = command("adapt", glyph_run, letters, "--steps", 60, "--csv", tmp_path / "o.csv", "--json")
    result = json.loads(out)
    assert code == 0
    assert (result["classes"], result["ink"], result["steps"]) == (["be", "shin", "zhe"], "dark", 60)
    for prediction in result["predictions"]:
        assert prediction["file"].endswith(f"{prediction['label']}.png")
        assert sum(prediction["probabilities"].values()) == pytest.approx(1, abs=1e-4)
    lines = (tmp_path / "o.csv").read_bytes().split(b"\n")
    assert lines[0] == b"file,label,probability"
    assert len(lines) == 5


def test_overwrite_replaces_predictions_but_not_inputs(command, complaint, glyph_run, letters, tmp_path):
    own = shutil.copytree(letters, tmp_path / "mine")
    words = ("adapt", glyph_run, own, "--csv", own / "o.csv")
    assert command(*words)[0] == 0
    assert command(*words, "--overwrite")[0] == 0
    picture = next((own / "query").iterdir())
    assert "is an input" in complaint(*words[:-1], picture, "--overwrite")


def test_ink_is_inferred_from_images(command, glyph_run, letters, tmp_path):
    dark = json.loads(command("adapt", glyph_run, letters, "--json")[1])
    light = json.loads(command("adapt", glyph_run, inverted(letters, tmp_path), "--json")[1])
    assert (dark["ink"], light["ink"]) == ("dark", "light")
    for a, b in zip(dark["predictions"], light["predictions"], strict=True):
        assert a["probability"] == pytest.approx(b["probability"], abs=0.02)  # resizing rounds
    told = json.loads(command("adapt", glyph_run, letters, "--ink", "light", "--json")[1])
    assert told["ink"] == "light"


def test_output_describes_adaptation_settings(command, glyph_run, letters):
    query = letters / "query" / "be.png"
    code, out, _ = command("adapt", glyph_run, letters, "--query", query, "--normalization", "support")
    assert code == 0
    assert str(query) in out
    assert "zhe.png" not in out
    assert "3 inner steps on 3 examples of 3 classes; normalisation support" in out
    assert "Assumed that the drawings are dark on light; otherwise give --ink light." in out


def picture(path, mode="L", size=(28, 28), colour: int | tuple[int, ...] = 0):
    path.parent.mkdir(parents=True, exist_ok=True)
    PIL.Image.new(mode, size, colour).save(path)


def test_invalid_folder_layouts_are_rejected(complaint, glyph_run, tmp_path):
    assert "there is no such folder" in complaint("adapt", glyph_run, tmp_path / "none")
    (tmp_path / "points.csv").write_text("x,y\n0,0\n1,\n")
    told = complaint("adapt", glyph_run, tmp_path / "points.csv")
    assert "adapt: must be a folder, as this model takes pictures, got" in told
    assert "put labelled pictures in DATA/support/CLASS/" in told
    assert "holds no folder `support`" in complaint("adapt", glyph_run, tmp_path)
    (tmp_path / "support").mkdir()
    assert "no class folders" in complaint("adapt", glyph_run, tmp_path)
    picture(tmp_path / "support/a/1.png")
    assert "must hold at least two classes, got 1" in complaint("adapt", glyph_run, tmp_path)
    (tmp_path / "support/b").mkdir()
    assert "contains no images" in complaint("adapt", glyph_run, tmp_path)
    picture(tmp_path / "support/b/1.png")
    assert "contains no images" in complaint("adapt", glyph_run, tmp_path)
    assert "there is no such file" in complaint("adapt", glyph_run, tmp_path, "--query", tmp_path / "no.png")


def test_too_many_classes_are_rejected(complaint, glyph_run, tmp_path):
    for name in "abcdef":
        picture(tmp_path / "support" / name / "1.png")
    said = complaint("adapt", glyph_run, tmp_path)
    assert "has outputs for 5 classes, got 6" in said
    assert "--data.ways 6" in said


def test_error_names_unreadable_image(complaint, glyph_run, tmp_path):
    for name in "ab":
        picture(tmp_path / "support" / name / "1.png")
    (tmp_path / "query").mkdir()
    (tmp_path / "query" / "broken.png").write_bytes(b"no picture")
    assert "broken.png: is not a readable image" in complaint("adapt", glyph_run, tmp_path)


def test_transparent_pixels_become_white(tmp_path):
    picture(tmp_path / "clear.png", "RGBA", colour=(0, 0, 0, 0))
    assert read_pictures([tmp_path / "clear.png"], (28, 28, 1)).min() == 255


def test_non_square_models_require_exact_image_size(tmp_path):
    picture(tmp_path / "x.png", size=(20, 30))
    assert read_pictures([tmp_path / "x.png"], (30, 20, 3)).shape == (1, 30, 20, 3)
    with pytest.raises(InnerloopError, match="must be 16 x 30 pixels, got 20 x 30"):
        read_pictures([tmp_path / "x.png"], (30, 16, 1))


def test_ink_option_is_rejected_for_photographs():
    config, pictures = Config(data=DataConfig(dataset="cifar_fs")), np.zeros((1, 4, 4, 3), np.uint8)
    assert _resolve_ink(config, None, pictures) is None
    with pytest.raises(
        InnerloopError, match="--ink: is only for drawings, and this model was trained on photographs"
    ):
        _resolve_ink(config, "dark", pictures)


def test_the_oracle_cannot_adapt(complaint, tmp_path):
    config = replace(preset("sinusoid-maml"), data=DataConfig(dataset="sinusoid", oracle=True))
    weights.save(tmp_path / "w.safetensors", fresh_model(config, (3,), jax.random.key(0)), config, {})
    assert "oracle" in complaint("adapt", tmp_path / "w.safetensors", tmp_path)


def points(tmp_path, text):
    path = tmp_path / "points.csv"
    path.write_text(text)
    return path


def test_points_are_predicted(command, sinusoid_run, tmp_path):
    path = points(tmp_path, "\ufeffX, y\n0,0\n1.5,2\n\n-1.5,-2\n0.5,\n1\n")
    code, out, _ = command("adapt", sinusoid_run, path, "--steps", 200, "--json")
    result = json.loads(out)
    assert (code, result["examples"]) == (0, 3)
    assert [p["x"] for p in result["predictions"]] == [0.5, 1.0]
    assert all(0 < p["y"] < 3 for p in result["predictions"])
    assert (
        "Adapted from sinusoid-maml with 2 inner steps on 3 examples."
        in command("adapt", sinusoid_run, path)[1]
    )


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "must begin with the header x,y"),
        ("0,0\n1,\n", "must begin with the header x,y"),
        ("x,y\n0,zero\n1,\n", "line 2: is not a number, got 'zero'"),
        ("x,y\n0,1_10\n1,\n", "line 2: is not a number, got '1_10'"),
        ("x,y\n0,0\nnan,\n", "line 3: must be a finite number"),
        ("x,y\n0,inf\n1,\n", "line 2: must be a finite number"),
        ("x,y\n0,0,0\n1,\n", "line 2: must hold x,y"),
        ("x,y\n0,0\n", "got 1 and 0"),
        ("x,y\n0,\n", "got 0 and 1"),
    ],
)
def test_invalid_points_are_rejected(complaint, sinusoid_run, tmp_path, text, words):
    assert words in complaint("adapt", sinusoid_run, points(tmp_path, text))


def test_sinusoid_adapt_rejects_invalid_inputs(complaint, sinusoid_run, tmp_path):
    path = tmp_path / "points.csv"
    path.write_bytes(b"\xff\xfe\x00x")
    assert "is not a text file" in complaint("adapt", sinusoid_run, path)
    assert "need a file of points" in complaint("adapt", sinusoid_run, tmp_path)
    assert "must be 0 or more" in complaint("adapt", sinusoid_run, path, "--steps", -1)


@pytest.mark.parametrize("words", [("--query", "missing.png"), ("--ink", "dark")])
def test_image_options_are_rejected_for_points(complaint, sinusoid_run, tmp_path, words):
    path = points(tmp_path, "x,y\n0,0\n1,\n")
    assert f"{words[0]}: is for pictures" in complaint("adapt", sinusoid_run, path, *words)


def test_unwritable_csv_path_is_reported(complaint, sinusoid_run, tmp_path):
    path = points(tmp_path, "x,y\n0,0\n1,\n")
    assert "No such file or directory" in complaint(
        "adapt", sinusoid_run, path, "--csv", tmp_path / "no/o.csv"
    )


def called(path, inputs):
    """What another program gets of an exported file."""
    return np.asarray(jax.export.deserialize(bytearray(path.read_bytes())).call(inputs))


def test_exported_image_network_matches_adapt(command, complaint, glyph_run, letters, tmp_path):
    """On the bytes of pictures as they are, dark on light."""
    adapted = json.loads(command("adapt", glyph_run, letters, "--json")[1])
    out = tmp_path / "letters.stablehlo"
    words = ("export", glyph_run, "--out", out, "--json", "--support")
    code, told, _ = command(*words, letters / "support")
    record = json.loads(told)
    assert (code, record["input"]["dtype"], record["holds_examples"]) == (0, "uint8", True)
    assert record["input"]["shape"] == ["batch", 28, 28, 1]
    assert record["output"]["columns"] == adapted["classes"] == ["be", "shin", "zhe"]
    new = read_pictures([letters / "query" / f"{name}.png" for name in ("be", "shin", "zhe")], (28, 28, 1))
    wanted = [list(p["probabilities"].values()) for p in adapted["predictions"]]
    np.testing.assert_allclose(called(out, new), wanted, atol=1e-5)
    assert "already exists" in complaint(*words, letters)
    code, told, _ = command("export", glyph_run, "--support", letters, "--out", out, "--overwrite")
    assert "inputs, uint8 [batch, 28, 28, 1]" in told
    assert "probabilities, float32 [batch, 3]: be, shin, zhe" in told
    assert "It contains the examples: normalization `inductive` needs them." in told
    np.testing.assert_allclose(called(out, new), wanted, atol=1e-5)


def test_exported_sinusoid_network_matches_adapt(command, complaint, sinusoid_run, tmp_path):
    path, out = points(tmp_path, "x,y\n0,0\n1.5,2\n-1.5,-2\n0.5,\n"), tmp_path / "wave"
    adapted = json.loads(command("adapt", sinusoid_run, path, "--json")[1])
    path.write_text("x,y\n0,0\n1.5,2\n-1.5,-2\n")  # none to predict: the network will
    words = ("export", sinusoid_run, "--support", path, "--out", out)
    assert "cannot tell the format" in complaint(*words)
    assert command(*words, "--format", "stablehlo")[0] == 0
    found = called(out, np.array([[0.5]], np.float32))
    np.testing.assert_allclose(found, [[adapted["predictions"][0]["y"]]], atol=1e-5)
    path.write_text("x,y\n0,\n")
    assert "needs rows with y to learn from, got 0 and 1" in complaint(
        *words, "--format", "onnx", "--overwrite"
    )


def test_export_errors_name_export_options(complaint, sinusoid_run, glyph_run, tmp_path):
    out = ("--out", tmp_path / "x.stablehlo", "--support")
    missing = tmp_path / "nope.csv"
    for words in (("adapt", sinusoid_run, missing), ("export", sinusoid_run, *out, missing)):
        assert f"{words[0]}: there is no such file, got '{missing}'; give a CSV" in complaint(*words)
    assert "export: sinusoids need a file of points" in complaint("export", sinusoid_run, *out, tmp_path)
    path = points(tmp_path, "x,y\n0,0\n")
    told = complaint("export", sinusoid_run, *out, path, "--ink", "dark")
    assert told.endswith("--ink: is for pictures, and sinusoids have none; leave it out.\n")
    assert "--support: must name an existing folder" in complaint("export", glyph_run, *out, missing)


def test_class_folder_can_be_named_support(tmp_path, letters):
    assert _class_folders(letters) == letters / "support"
    assert _class_folders(letters / "support") == letters / "support"
    for name in ("support", "beams"):
        shutil.copytree(letters / "support" / "be", tmp_path / "pics" / name)
    assert _class_folders(tmp_path / "pics") == tmp_path / "pics"
    (tmp_path / "pics" / "beams").rename(tmp_path / "pics" / "query")  # pictures that nobody put into classes
    assert _class_folders(tmp_path / "pics") == tmp_path / "pics" / "support"
