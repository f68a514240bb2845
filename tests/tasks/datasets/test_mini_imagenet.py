import csv
import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from innerloop.errors import InnerloopError
from innerloop.tasks.datasets import mini_imagenet
from innerloop.tasks.io import array_files

PARTS = {"train": ["n01", "n02", "n03"], "val": ["n04", "n05"], "test": ["n06"]}
NUMBER = {name: i for i, name in enumerate(n for names in PARTS.values() for n in names)}

pytestmark = pytest.mark.usefixtures("empty_cache")
partial = pytest.mark.filterwarnings("ignore:mini_imagenet.load. this is not all")


def picture(path: Path, name: str, n: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (40 + n, 30), (40 * NUMBER[name], 20 * n, 128)).save(path, quality=95)


@pytest.fixture
def folders(tmp_path):
    for part, names in PARTS.items():
        for name in names:
            for n in range(3):
                picture(tmp_path / part / name / f"{name}_{n}.jpg", name, n)
    return tmp_path


@pytest.fixture
def tables(tmp_path):
    for part, names in PARTS.items():
        with (tmp_path / f"{part}.csv").open("w", newline="") as file:
            rows = csv.writer(file)
            rows.writerow(["filename", "label"])
            for n in range(3):
                for name in names:
                    rows.writerow([f"{name}{n:08}.jpg", name])
                    picture(tmp_path / "images" / f"{name}{n:08}.jpg", name, n)
    return tmp_path


@partial
@pytest.mark.parametrize("layout", ["folders", "tables"])
def test_both_layouts_are_read(layout, request):
    splits = mini_imagenet.load(request.getfixturevalue(layout), size=16)
    assert [list(part.names) for part in splits] == list(PARTS.values())
    for part in splits:
        assert part.shape == (16, 16, 3)
        assert part.counts.tolist() == [3] * part.classes
        for i, name in enumerate(part.names):
            colour = part.rows(i).mean((1, 2))
            np.testing.assert_allclose(colour[:, 0], 40 * NUMBER[name], atol=4)
            np.testing.assert_allclose(colour[:, 1], [0, 20, 40], atol=4)


@partial
def test_default_size_is_84(folders):
    assert mini_imagenet.load(folders).train.shape == (84, 84, 3)


def test_incomplete_dataset_warns(folders):
    with pytest.warns(UserWarning, match="not all of mini-ImageNet: 3 / 2 / 1 classes of 3 to 3 images"):
        mini_imagenet.load(folders, size=8)


@partial
def test_changed_file_invalidates_cache(folders):
    before = mini_imagenet.load(folders, size=8).test.examples
    Image.new("RGB", (50, 50), (255, 255, 255)).save(folders / "test" / "n06" / "n06_0.jpg")
    with pytest.warns(UserWarning, match="another source"):
        after = mini_imagenet.load(folders, size=8).test.examples
    assert before[0].max() < 255
    assert after[0].min() == 255
    np.testing.assert_array_equal(before[1:], after[1:])


@partial
def test_second_load_reads_only_the_cache(folders, monkeypatch):
    first = mini_imagenet.load(folders, size=8)
    monkeypatch.setattr("innerloop.tasks.io.class_folders.open_image", None)
    np.testing.assert_array_equal(mini_imagenet.load(folders, size=8).train.examples, first.train.examples)


@partial
def test_cache_of_older_version_is_ignored(folders, empty_cache):
    """Version 1 dropped transparency and orientation; its entries have the same source."""
    right = mini_imagenet.load(folders, size=8).test.examples.copy()
    (entry,) = (empty_cache / "arrays").glob("*.npy")
    entries = array_files.read(entry, verify=True)
    wrong = replace(entries, examples=np.zeros(entries.examples.shape, np.uint8))
    source = json.loads(array_files.sidecar(entry).read_text())["source"]
    array_files.write(wrong, entry.with_name(re.sub(r"-v[0-9]+-", "-v1-", entry.name)), source)
    if "-v1-" not in entry.name:
        entry.unlink()
        array_files.sidecar(entry).unlink()
    np.testing.assert_array_equal(mini_imagenet.load(folders, size=8).test.examples, right)


def test_unknown_layout_error_explains_how_to_get_data(tmp_path):
    with pytest.raises(
        InnerloopError, match="neither of the usual layouts.*make mini-ImageNet from ImageNet"
    ):
        mini_imagenet.load(tmp_path / "none")


def test_invalid_csv_tables_raise(tables):
    (tables / "val.csv").write_text("filename,label\nn0400000000.jpg,n01\n")
    with pytest.raises(InnerloopError, match="class 'n01' is in two of the sets"):
        mini_imagenet.load(tables)
    for content, message in [
        (
            "filename,label\nmissing.jpg,n04\n",
            r"val\.csv: lists an image that is not in .* got 'missing.jpg'",
        ),
        ("filename,label\n../../secret.jpg,n04\n", "plain file names"),
        ("filename,label\n", "at least one image"),
        ("image,class\nx,y\n", "must have the header filename,label"),
    ]:
        (tables / "val.csv").write_text(content)
        with pytest.raises(InnerloopError, match=message):
            mini_imagenet.load(tables)


@partial
def test_unreadable_image_is_named(folders):
    (folders / "val" / "n05" / "n05_1.jpg").write_bytes(b"\xff\xd8\xff")
    with pytest.raises(InnerloopError, match=r"n05_1\.jpg: is not a readable image"):
        mini_imagenet.load(folders, size=8)
