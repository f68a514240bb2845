from collections import Counter

import pytest

from innerloop.errors import InnerloopError
from innerloop.tasks.io import class_splits

SIZES = {"omniglot_maml": (1100, 100, 423), "cifar_fs": (64, 16, 20), "fc100": (60, 20, 20)}


@pytest.mark.parametrize("protocol", [*SIZES, "glyphs"])
def test_no_class_is_in_two_splits(protocol):
    counted = Counter(name for split in class_splits.SPLITS for name in class_splits.names(protocol, split))
    assert set(counted.values()) == {1}


@pytest.mark.parametrize(("protocol", "sizes"), SIZES.items())
def test_splits_have_published_sizes(protocol, sizes):
    assert tuple(len(class_splits.names(protocol, split)) for split in class_splits.SPLITS) == sizes


def test_cifar_splits_cover_the_same_hundred_classes():
    names = [
        {n for s in class_splits.SPLITS for n in class_splits.names(p, s)} for p in ("cifar_fs", "fc100")
    ]
    assert names[0] == names[1]
    assert len(names[0]) == 100


def test_split_file_with_wrong_checksum_raises(monkeypatch):
    monkeypatch.setitem(class_splits.SHA256, "fc100_test.txt", "0" * 64)
    with pytest.raises(InnerloopError, match=r"fc100_test\.txt: the class split does not match"):
        class_splits.names("fc100", "test")
    assert class_splits.names("fc100", "train")[0] == "apple"
