import time

import numpy as np
import pytest
from tools import glyph_classes

from innerloop.errors import InnerloopError
from innerloop.tasks.datasets import glyph_fonts, glyphs
from innerloop.tasks.io import class_splits


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("glyphs")


@pytest.fixture(scope="module")
def splits(cache):
    return glyphs.load(cache=cache)


def test_split_sizes_and_examples_per_class(splits):
    assert [part.classes for part in splits] == [663, 85, 152]
    for part in splits:
        assert part.shape == (28, 28, 1)
        assert part.examples.dtype == np.uint8
        assert set(part.counts.tolist()) == {20}


def test_each_script_is_in_one_part(splits):
    scripts = [{name.split("/")[0] for name in part.names} for part in splits]
    assert scripts[2] == {"Cyrillic", "Armenian", "Georgian", "Hebrew"}
    assert not scripts[0] & scripts[1]
    assert not scripts[2] & (scripts[0] | scripts[1])


def test_class_shapes_are_distinct():
    names = [class_splits.names("glyphs", part) for part in class_splits.SPLITS]
    overlap = glyph_classes._overlaps([int(name.split("+")[1], 16) for part in names for name in part])
    np.fill_diagonal(overlap, 0)
    part = np.repeat(np.arange(3), [len(part) for part in names])
    across = part[:, None] != part[None, :]
    # a little above the bounds the lists were chosen by: other FreeType versions draw a little differently
    assert overlap.max() < 0.93
    assert overlap[across].max() < 0.91
    lookalikes = glyph_classes._overlaps([ord(c) for c in "AАΑcC"])  # Latin, Cyrillic and Greek A; c and C
    assert lookalikes[:3, :3].min() > 0.98
    assert lookalikes[3, 4] > 0.92
    assert lookalikes[0, 3] < 0.8


def test_choose_excludes_lookalikes(monkeypatch):
    scripts = {"train": ("Coptic",), "validation": ("Hebrew",), "test": ("Lisu",)}
    monkeypatch.setattr(glyph_classes, "SCRIPTS", scripts)
    chosen = glyph_classes.choose()
    assert {part: names[0].split("/")[0] for part, names in chosen.items()} == {
        "train": "Coptic",
        "validation": "Hebrew",
        "test": "Lisu",
    }
    codes = [int(name.split("+")[1], 16) for names in chosen.values() for name in names]
    overlap = glyph_classes._overlaps(codes)
    np.fill_diagonal(overlap, 0)
    assert overlap.max() < glyph_classes.ALIKE
    everything = sum(len(glyph_classes._codes(s[0])) for s in scripts.values())
    assert len(codes) < everything  # Lisu has rotated twins of its own


def test_glyphs_are_uncropped_visible_and_centred(splits):
    for part in splits:
        ink = part.examples[..., 0].astype(np.float32) / 255
        amount = ink.mean((1, 2))
        assert amount.min() > 0.01
        assert amount.max() < 0.6
        border = np.concatenate([ink[:, 0], ink[:, -1], ink[:, :, 0], ink[:, :, -1]], 1)
        assert (border.max(1) > 0.5).mean() < 0.01  # a glyph hardly ever touches the border
        line = np.arange(28) - 13.5
        centre = np.stack([(ink.sum(axis) @ line) / ink.sum((1, 2)) for axis in (1, 2)])
        assert np.abs(centre.mean(1)).max() < 1.0


def test_drawers_vary_within_recognisable_classes(splits):
    """Nearest neighbour on raw pixels, 5 ways 1 shot: far above chance, far below all."""
    test, rng = splits.test, np.random.default_rng(0)
    pictures = test.examples.reshape(test.classes, 20, -1).astype(np.float32)
    assert all(len(np.unique(drawers, axis=0)) == 20 for drawers in pictures)
    hits = []
    for _ in range(300):
        episode = pictures[rng.choice(test.classes, 5, replace=False)][:, rng.permutation(20)[:2]]
        distance = ((episode[:, None, 1] - episode[None, :, 0]) ** 2).sum(-1)
        hits.append(distance.argmin(1) == np.arange(5))
    assert 0.4 < np.mean(hits) < 0.85


def test_images_are_determined_by_arguments(monkeypatch, tmp_path):
    few = {split: class_splits.names("glyphs", split)[:4] for split in class_splits.SPLITS}
    monkeypatch.setattr(class_splits, "names", lambda protocol, split: few[split])
    first, again, other, larger = (
        glyphs.load(cache=tmp_path / f"{i}", drawers=6, **kwargs).train
        for i, kwargs in enumerate(({}, {}, {"seed": 1}, {"size": 40}))
    )
    np.testing.assert_array_equal(first.examples, again.examples)
    assert not np.array_equal(first.examples, other.examples)
    assert larger.examples.shape == (24, 40, 40, 1)


def test_cached_load_is_fast(cache, splits):
    start = time.perf_counter()
    glyphs.load(cache=cache)
    assert time.perf_counter() - start < 1


@pytest.mark.parametrize("bad", [{"size": 4}, {"drawers": 0}, {"size": 1000}])
def test_invalid_arguments_raise(bad):
    with pytest.raises(InnerloopError, match="size must be between 8 and 256 and drawers"):
        glyphs.load(**bad)


def test_missing_font_raises(monkeypatch, tmp_path):
    monkeypatch.setattr("matplotlib.get_data_path", lambda: str(tmp_path))
    with pytest.raises(InnerloopError, match="a font of matplotlib is missing"):
        glyph_fonts._path("DejaVuSans")


def test_blank_character_has_empty_bitmap():
    assert glyph_fonts.bitmap(0x20, "DejaVuSans", 28).sum() == 0
