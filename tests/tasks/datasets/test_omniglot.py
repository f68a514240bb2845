import io
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from innerloop.errors import InnerloopError
from innerloop.tasks.datasets import omniglot


def page(rows: slice = slice(40, 60), size: int = 105, mode: str = "1") -> bytes:
    """A white page with a black bar."""
    ink = np.full((size, size), 255, np.uint8)
    ink[rows, 20:80] = 0
    out = io.BytesIO()
    Image.fromarray(ink).convert(mode).save(out, "PNG")
    return out.getvalue()


@pytest.fixture
def small(tmp_path, zip_of, monkeypatch, empty_cache):
    """A folder of two archives of one character each, in the place of the real ones."""
    monkeypatch.setattr(omniglot, "CLASSES", 2)
    monkeypatch.setattr(omniglot, "DRAWERS", 2)
    monkeypatch.setenv("INNERLOOP_DATA", str(tmp_path))

    def make(**members: bytes) -> Path:
        for kind in ("background", "evaluation"):
            names = [f"images_{kind}/{kind}/character01/0001_{n:02}.png" for n in (1, 2)]
            first = {names[0]: page(), names[1]: page(slice(10, 30))}
            extra = {f"images_{kind}/{kind}/character01/{n}.png": c for n, c in members.items()}
            zip_of(tmp_path / f"omniglot/images_{kind}.zip", first | extra)
        return tmp_path

    return make


def test_images_with_wrong_checksum_raise(small):
    small()
    with pytest.raises(InnerloopError, match="not Omniglot's, got sha256"):
        omniglot.load()


def test_ink_is_white_on_black_and_antialiased(small, monkeypatch):
    small()
    monkeypatch.setattr(omniglot, "_check", lambda *_: None)
    data = omniglot._build(28, "lanczos", None)
    assert data.names == ("background/character01", "evaluation/character01")
    assert data.examples.shape == (4, 28, 28, 1)
    bar, sky = data.examples[0, 11:15, 8:20], data.examples[0, 20:]
    assert bar.min() > 240  # a filter with negative lobes rings a little
    assert sky.max() == 0
    assert len(np.unique(data.examples)) > 10  # antialiased: not only ink and background
    assert np.unique(omniglot._build(28, "nearest", None).examples).tolist() == [0, 255]


def test_extra_image_raises(small):
    small(**{"0001_03": page()})
    with pytest.raises(InnerloopError, match="needs 2 characters of 2 images, got 2 characters, 6 images"):
        omniglot.load()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (page(size=100), r"0001_03\.png: must be .* image of 105 x 105 pixels, got \(100, 100\), mode 1"),
        (page(mode="RGB"), r"0001_03\.png: must be .* mode RGB"),
        (page()[:50], r"0001_03\.png: is not a readable image"),
        (b"text", r"0001_03\.png: is not a readable image"),
    ],
)
def test_invalid_image_in_archive_is_named(small, content, message):
    small(**{"0001_03": content})
    with pytest.raises(InnerloopError, match=message):
        omniglot.load()


@pytest.mark.parametrize("bad", [{"split": "none"}, {"size": 0}, {"resample": "cubic"}])
@pytest.mark.usefixtures("unchecked_types")
def test_invalid_arguments_raise(bad):
    with pytest.raises(InnerloopError, match="omniglot.load"):
        omniglot.load(**bad)


@pytest.mark.data
def test_real_data_loads_and_reloads_quickly(real_data):
    splits = omniglot.load()
    start = time.process_time()
    again = omniglot.load()
    assert time.process_time() - start < 1
    assert [part.classes for part in splits] == [1100, 100, 423]
    for part, same in zip(splits, again, strict=True):
        assert part.shape == (28, 28, 1)
        assert set(part.counts.tolist()) == {20}
        np.testing.assert_array_equal(part.examples, same.examples)
    assert 0.02 < splits.test.examples.mean() / 255 < 0.15  # little ink on a dark background


@pytest.mark.data
def test_background_split_tests_on_evaluation_alphabets(real_data):
    splits = omniglot.load("background")
    assert [part.classes for part in splits] == [869, 95, 659]
    alphabets = [{name.split("/")[0] for name in part.names} for part in splits]
    assert not alphabets[0] & alphabets[1]
    assert not alphabets[2] & (alphabets[0] | alphabets[1])
    assert [len(a) for a in alphabets] == [27, 3, 20]


@pytest.mark.data
def test_labels_match_images(real_data):
    """Nearest neighbour on raw pixels, 5 ways 1 shot: about 43 % where chance is 20 %."""
    test, rng = omniglot.load("background").test, np.random.default_rng(0)
    pictures = test.examples.reshape(test.classes, 20, -1).astype(np.float32)
    hits = []
    for _ in range(300):
        episode = pictures[rng.choice(test.classes, 5, replace=False)][:, rng.permutation(20)[:2]]
        distance = ((episode[:, None, 1] - episode[None, :, 0]) ** 2).sum(-1)
        hits.append(distance.argmin(1) == np.arange(5))
    assert 0.38 < np.mean(hits) < 0.50
