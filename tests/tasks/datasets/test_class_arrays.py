from dataclasses import replace

import numpy as np
import pytest

from innerloop.errors import InnerloopError
from innerloop.tasks.datasets import ClassArrays, memmap


def test_from_lists_handles_classes_of_unequal_size(some_arrays):
    assert some_arrays.classes == 4
    assert some_arrays.shape == (4, 3, 1)
    assert some_arrays.counts.tolist() == [2, 5, 1, 3]
    assert some_arrays.starts.tolist() == [0, 2, 7, 8]
    np.testing.assert_array_equal(some_arrays.rows(2), some_arrays.examples[7:8])
    assert repr(some_arrays) == "<ClassArrays: 4 classes, examples uint8[11, 4, 3, 1]>"


def test_select_returns_classes_in_given_order(some_arrays):
    chosen = some_arrays.select(["d", "b"])
    assert chosen.names == ("d", "b")
    assert chosen.starts.tolist() == [0, 3]
    assert len(chosen.examples) == 8
    np.testing.assert_array_equal(chosen.rows(0), some_arrays.examples[8:11])
    np.testing.assert_array_equal(chosen.rows(1), some_arrays.examples[2:7])


def test_select_of_unknown_class_raises(some_arrays):
    with pytest.raises(InnerloopError, match="'nope'"):
        some_arrays.select(["a", "nope"])


@pytest.mark.parametrize("names", [[], ["a", "a"]])
def test_select_of_no_or_repeated_classes_raises(some_arrays, names):
    with pytest.raises(InnerloopError):
        some_arrays.select(names)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"examples": np.zeros((11, 4, 3, 1))}, "uint8 or float32, got float64"),
        ({"examples": [1, 2]}, "got list"),
        ({"examples": np.zeros((11, 12), np.uint8)}, "axes"),
        ({"starts": np.array([0, 2, 7, 8])}, "starts must be a NumPy array of int32, got int64"),
        ({"counts": [2, 5, 1, 3]}, "counts must be .* got list"),
        ({"counts": np.array([2, 5, 4], np.int32)}, r"counts must have one entry per name \(4\)"),
        ({"names": ["a", "b", "c", "d"]}, "tuple of strings"),
        ({"names": ("a", "b", "c", 4)}, "tuple of strings"),
        ({"names": ("a", "b", "a", "d")}, "'a' twice"),
        ({"counts": np.array([2, 5, 0, 3], np.int32)}, "class 'c' must have examples, got 0"),
        ({"counts": np.array([2, 5, 1, 4], np.int32)}, "rows 0 to 12 of 11"),
        ({"counts": np.array([3, 5, 1, 3], np.int32)}, "disjoint ranges"),
        ({"starts": np.array([-1, 2, 7, 8], np.int32)}, "rows -1"),
    ],
)
@pytest.mark.usefixtures("unchecked_types")
def test_inconsistent_fields_raise(some_arrays, change, message):
    with pytest.raises(InnerloopError, match=message):
        replace(some_arrays, **change)


def test_empty_class_arrays_raise():
    none = np.zeros(0, np.int32)
    with pytest.raises(InnerloopError, match="at least one class"):
        ClassArrays(np.zeros((0, 2, 2, 1), np.uint8), none, none, ())


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_nonfinite_values_raise_with_count(bad):
    rows = np.zeros((3, 2, 2, 1), np.float32)
    rows[1, 0, 0] = bad
    with pytest.raises(InnerloopError, match="1 NaN or infinite"):
        ClassArrays.from_lists([rows], ["a"])


def test_from_lists_rejects_mixed_shapes_and_missing_names():
    with pytest.raises(InnerloopError, match="one example shape"):
        ClassArrays.from_lists(
            [np.zeros((1, 2, 2, 1), np.uint8), np.zeros((1, 3, 2, 1), np.uint8)], ["a", "b"]
        )
    with pytest.raises(InnerloopError, match="1 array and 2 names"):
        ClassArrays.from_lists([np.zeros((1, 2, 2, 1), np.uint8)], ["a", "b"])
    with pytest.raises(InnerloopError, match="0 arrays"):
        ClassArrays.from_lists([], [])


def test_gather_copies_out_of_a_memory_map(some_arrays, tmp_path):
    memmap.save(some_arrays, tmp_path / "a.npy")
    mapped = memmap.open(tmp_path / "a.npy")
    gathered = mapped.gather(["c", "a"])
    assert not isinstance(gathered.examples, np.memmap)
    assert not np.shares_memory(gathered.examples, mapped.examples)
    np.testing.assert_array_equal(
        gathered.examples, np.concatenate([some_arrays.rows(2), some_arrays.rows(0)])
    )
