import numpy as np
import pytest
from PIL import Image

from innerloop.errors import InnerloopError
from innerloop.tasks.datasets import image_folder

TEN = {f"class{i}": 2 + i % 3 for i in range(10)}


def test_classes_are_split_by_default_fractions(tmp_path, picture_tree):
    picture_tree(tmp_path, TEN)
    splits = image_folder.load(tmp_path)
    assert [part.classes for part in splits] == [6, 2, 2]
    names = [name for part in splits for name in part.names]
    assert sorted(names) == sorted(TEN)
    assert {n: c for part in splits for n, c in zip(part.names, part.counts.tolist(), strict=True)} == TEN


def test_images_keep_their_class(tmp_path, picture_tree):
    picture_tree(tmp_path, TEN)
    for part in image_folder.load(tmp_path):
        for i, name in enumerate(part.names):
            assert part.rows(i)[:, 0, 0, 0].tolist() == [10 * int(name[5:]) + n for n in range(TEN[name])]


def test_split_is_determined_by_seed(tmp_path, picture_tree):
    picture_tree(tmp_path, TEN)
    first, again, other = (image_folder.load(tmp_path, seed=seed).test.names for seed in (0, 0, 1))
    assert first == again
    assert first != other


def test_three_classes_give_one_per_part(tmp_path, picture_tree):
    picture_tree(tmp_path, {"a": 1, "b": 1, "c": 1})
    for split in [(0.9, 0.05, 0.05), (0.05, 0.9, 0.05), (0.05, 0.05, 0.9)]:
        assert [part.classes for part in image_folder.load(tmp_path, split=split)] == [1, 1, 1]


@pytest.mark.parametrize("validation", ["validation", "val"])
def test_existing_part_folders_are_used(tmp_path, picture_tree, validation):
    picture_tree(tmp_path / "train", {"a": 2, "b": 1})
    picture_tree(tmp_path / validation, {"c": 2})
    picture_tree(tmp_path / "test", {"d": 4})
    splits = image_folder.load(tmp_path)
    assert [part.names for part in splits] == [("a", "b"), ("c",), ("d",)]
    assert splits.test.counts.tolist() == [4]


def test_shared_class_or_missing_part_raises(tmp_path, picture_tree):
    picture_tree(tmp_path / "train", {"a": 1, "b": 1})
    picture_tree(tmp_path / "test", {"b": 1})
    with pytest.raises(InnerloopError, match="two of the three sets, got no folder .*validation"):
        image_folder.load(tmp_path)
    picture_tree(tmp_path / "val", {"c": 1})
    with pytest.raises(InnerloopError, match="class 'b' is in two of the sets"):
        image_folder.load(tmp_path)


def test_channels_follow_images_or_argument(tmp_path, picture_tree):
    picture_tree(tmp_path, {"a": 2, "b": 1, "c": 1}, mode="L")
    assert image_folder.read_classes(tmp_path).shape == (5, 6, 1)
    assert image_folder.read_classes(tmp_path, channels=3).shape == (5, 6, 3)
    Image.new("RGBA", (6, 5), (9, 8, 7, 0)).save(tmp_path / "a" / "last.png")
    colour = image_folder.read_classes(tmp_path)
    assert colour.shape == (5, 6, 3)
    assert colour.rows(0)[-1, 0, 0].tolist() == [255, 255, 255]


def test_common_formats_are_read(tmp_path):
    picture = Image.new("RGB", (8, 8), (250, 10, 10))
    (tmp_path / "a").mkdir()
    for ending in ("png", "JPG", "bmp", "gif", "webp", "tiff"):
        picture.save(tmp_path / "a" / f"x.{ending}")
    (tmp_path / "a" / "notes.txt").write_text("passed over")
    (tmp_path / ".hidden").mkdir()
    data = image_folder.read_classes(tmp_path)
    assert data.counts.tolist() == [6]
    assert (data.examples[..., 0] > 240).all()
    assert (data.examples[..., 1:] < 20).all()


def test_sixteen_bit_grey_keeps_its_range(tmp_path):
    (tmp_path / "a").mkdir()
    ramp = np.linspace(0, 65535, 16).astype(np.uint16).reshape(4, 4)
    Image.fromarray(ramp).save(tmp_path / "a" / "x.png")
    np.testing.assert_array_equal(image_folder.read_classes(tmp_path).examples[0, :, :, 0], ramp >> 8)


def test_mixed_sizes_raise_unless_size_is_given(tmp_path, picture_tree):
    picture_tree(tmp_path, {"a": 2, "b": 2, "c": 1})
    Image.new("RGB", (7, 5)).save(tmp_path / "b" / "00.png")
    with pytest.raises(InnerloopError, match=r"b.00\.png: must be 6 x 5 pixels .*, got 7 x 5; give `size`"):
        image_folder.load(tmp_path)
    assert {part.shape for part in image_folder.load(tmp_path, size=4)} == {(4, 4, 3)}


@pytest.mark.parametrize("given", [{}, {"size": 4, "channels": 3}])
def test_unreadable_images_are_named(tmp_path, picture_tree, given):
    picture_tree(tmp_path, {"a": 2, "b": 2, "c": 1})
    bad = tmp_path / "b" / "01.png"
    whole = bad.read_bytes()
    for content in (b"", b"text", whole[:20], whole[:45]):
        bad.write_bytes(content)
        with pytest.raises(InnerloopError, match=r"b.01\.png: is not a readable image"):
            image_folder.load(tmp_path, **given)


def test_decompression_bomb_is_rejected(tmp_path, picture_tree, monkeypatch):
    picture_tree(tmp_path, {"a": 1})
    monkeypatch.setattr("innerloop.tasks.io.images.PIXELS", 29)
    with pytest.raises(InnerloopError, match=r"00\.png: the image has more than 29 pixels"):
        image_folder.read_classes(tmp_path)


def test_images_exceeding_memory_in_total_raise(tmp_path, picture_tree, monkeypatch):
    """Counted over the three sets together: each alone would fit."""
    picture_tree(tmp_path, {"a": 1, "b": 1, "c": 1})
    monkeypatch.setattr("innerloop.tasks.io.class_folders.largest", lambda: 2 * 6 * 5 * 3)
    with pytest.raises(InnerloopError, match="3 images of 5 x 6 x 3 take more than 180 bytes"):
        image_folder.load(tmp_path)


def test_folders_without_classes_or_images_raise(tmp_path, picture_tree):
    with pytest.raises(InnerloopError, match="must name an existing folder"):
        image_folder.load(tmp_path / "none")
    with pytest.raises(InnerloopError, match="contains no class folders"):
        image_folder.load(tmp_path)
    picture_tree(tmp_path, {"a": 1, "b": 1})
    with pytest.raises(InnerloopError, match="at least three classes, got 2"):
        image_folder.load(tmp_path)
    (tmp_path / "c").mkdir()
    with pytest.raises(InnerloopError, match="class folder .*c contains no images"):
        image_folder.load(tmp_path)


def test_min_examples_drops_small_classes(tmp_path, picture_tree):
    """They are named; the split is that of the others, and a given set leaves its own out."""
    picture_tree(tmp_path / "a", TEN)
    with pytest.warns(
        UserWarning, match="4 of 10 classes with fewer than 3 images are left out: class0, class3, "
    ):
        splits = image_folder.load(tmp_path / "a", min_examples=3)
    assert [part.classes for part in splits] == [4, 1, 1]
    assert min(part.counts.min() for part in splits) == 3
    for part, counts in (("train", {"a": 4, "b": 1}), ("val", {"c": 2}), ("test", {"d": 4, "e": 3})):
        picture_tree(tmp_path / "b" / part, counts)
    with pytest.warns(UserWarning, match="1 of 2 classes with fewer than 2 images are left out: b$"):
        splits = image_folder.load(tmp_path / "b", min_examples=2)
    assert [part.names for part in splits] == [("a",), ("c",), ("d", "e")]
    with pytest.raises(InnerloopError, match="no class has 9 images, got at most 4; lower `min_examples`"):
        image_folder.load(tmp_path / "b", min_examples=9)


@pytest.mark.parametrize(
    "bad",
    [
        {"split": (0.5, 0.5, 0.0)},
        {"split": (0.5, 0.4, 0.3)},
        {"split": (0.5, 0.5)},
        {"channels": 2},
        {"size": 0},
    ],
)
@pytest.mark.usefixtures("unchecked_types")
def test_invalid_arguments_raise(tmp_path, picture_tree, bad):
    picture_tree(tmp_path, TEN)
    with pytest.raises(InnerloopError, match=f"{next(iter(bad))}.* must be"):
        image_folder.load(tmp_path, **bad)
