import io
import tarfile
import time
from pathlib import Path

import numpy as np
import pytest

from innerloop.errors import InnerloopError
from innerloop.tasks.datasets import cifar

CLASSES, TRAIN, TEST = 4, 5, 1


def records(rng: np.random.Generator, per_class: int) -> np.ndarray:
    content = rng.integers(0, 256, (CLASSES * per_class, cifar.RECORD), np.uint8)
    content[:, 1] = np.arange(len(content)) % CLASSES
    return content


def pack(path: Path, train: np.ndarray, test: np.ndarray, **other: bytes) -> None:
    names = "\n".join(f"name{i}" for i in range(CLASSES)).encode()
    parts = {"train.bin": train.tobytes(), "test.bin": test.tobytes(), "fine_label_names.txt": names}
    with tarfile.open(path / "cifar-100-binary.tar.gz", "w:gz") as archive:
        for name, content in (parts | other).items():
            member = tarfile.TarInfo(f"cifar-100-binary/{name}")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))


@pytest.fixture
def small(tmp_path, monkeypatch, empty_cache):
    """A folder for a small archive, and the records to put in."""
    monkeypatch.setattr(cifar, "CLASSES", CLASSES)
    monkeypatch.setattr(cifar, "PER_CLASS", TRAIN + TEST)
    monkeypatch.setenv("INNERLOOP_DATA", str(tmp_path))
    rng = np.random.default_rng(0)
    return tmp_path, records(rng, TRAIN), records(rng, TEST)


def built(monkeypatch) -> "cifar.ClassArrays":
    """Build with whatever sha256 the content has."""
    with pytest.raises(InnerloopError) as caught:
        cifar._build(None)
    monkeypatch.setattr(cifar, "PIXELS", str(caught.value).split("sha256 ")[1][:64])
    return cifar._build(None)


def test_images_with_wrong_checksum_raise(small):
    pack(*small)
    with pytest.raises(InnerloopError, match="not CIFAR-100's, got sha256"):
        cifar.load()


def test_train_and_test_files_are_merged_channels_last(small, monkeypatch):
    pack(*small)
    data = built(monkeypatch)
    assert data.names == ("name0", "name1", "name2", "name3")
    assert data.counts.tolist() == [6] * 4
    both = np.concatenate(small[1:])
    wanted = {r[2:].reshape(3, 32, 32).transpose(1, 2, 0).tobytes() for r in both[both[:, 1] == 2]}
    assert {picture.tobytes() for picture in data.rows(2)} == wanted


def test_arrays_do_not_depend_on_record_order(small, monkeypatch):
    folder, train, test = small
    pack(folder, train, test)
    first = built(monkeypatch)
    both = np.concatenate([train, test])[np.random.default_rng(1).permutation(24)]
    pack(folder, both[:20], both[20:])
    np.testing.assert_array_equal(cifar._build(None).examples, first.examples)
    both[0, 5] ^= 1
    pack(folder, both[:20], both[20:])
    with pytest.raises(InnerloopError, match="not CIFAR-100's"):
        cifar._build(None)


def test_invalid_archive_content_raises(small):
    folder, train, test = small
    pack(folder, train[:-1], test)
    with pytest.raises(InnerloopError, match=f"must contain 24 records of 3074 bytes, got {23 * 3074}"):
        cifar.load()
    pack(folder, train, test, **{"fine_label_names.txt": b"one two"})
    with pytest.raises(InnerloopError, match="2 names"):
        cifar.load()
    train[0, 1] = 1
    pack(folder, train, test)
    with pytest.raises(InnerloopError, match="classes of 5 to 7 images"):
        cifar.load()
    with tarfile.open(folder / "cifar-100-binary.tar.gz", "w:gz"):
        pass
    with pytest.raises(InnerloopError, match="is not the binary version of CIFAR-100, got no train.bin"):
        cifar.load()


@pytest.mark.usefixtures("unchecked_types")
def test_unknown_split_raises():
    with pytest.raises(
        InnerloopError, match="`split` is unknown, got 'cifar'; choose among: cifar_fs, fc100"
    ):
        cifar.load("cifar")  # pyright: ignore[reportArgumentType]


@pytest.mark.data
def test_real_data_loads_and_reloads_quickly(real_data):
    splits = cifar.load()
    start = time.process_time()
    other = cifar.load("fc100")
    assert (
        time.process_time() - start < 2
    )  # 0.7 s on a quiet machine; of the processor, which others may use too
    assert [part.classes for part in splits] == [64, 16, 20]
    assert [part.classes for part in other] == [60, 20, 20]
    assert {part.shape for part in splits} == {(32, 32, 3)}
    assert set(splits.train.counts.tolist()) == {600}
    a, b = other.train, splits.train
    both = next(name for name in a.names if name in b.names)
    np.testing.assert_array_equal(a.rows(a.names.index(both)), b.rows(b.names.index(both)))


@pytest.mark.data
def test_class_names_match_images(real_data):
    """What shifted labels or swapped channels would break: the sea is blue, apples are red."""
    splits = cifar.load("fc100")
    colour = {
        name: part.rows(i).mean((0, 1, 2))
        for part in splits
        for i, name in enumerate(part.names)
        if name in ("sea", "apple", "forest")
    }
    assert colour["sea"].argmax() == 2
    assert colour["apple"].argmax() == 0
    assert colour["forest"].argmax() == 1
