import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from innerloop.errors import InnerloopError
from innerloop.tasks.datasets import ClassArrays, memmap
from innerloop.tasks.io import array_files
from innerloop.tasks.io.cache import cached


def same(a: ClassArrays, b: ClassArrays) -> bool:
    return a.names == b.names and all(
        np.array_equal(x, y)
        for x, y in [(a.examples, b.examples), (a.starts, b.starts), (a.counts, b.counts)]
    )


def edit(path: Path, **fields: object) -> None:
    about = json.loads(path.read_text())
    path.write_text(json.dumps({**about, **fields}))


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


DAMAGE: dict[str, Callable[[Path], object]] = {
    "checksum": flip,
    "truncated": lambda path: path.write_bytes(path.read_bytes()[:-5]),
    "not an array file": lambda path: path.write_bytes(b"PK\x03\x04 something else"),
    "is missing": lambda path: path.unlink(),
    "JSON": lambda path: array_files.sidecar(path).write_text("{broken"),
    "not valid JSON": lambda path: array_files.sidecar(path).unlink(),
    "one JSON object": lambda path: array_files.sidecar(path).write_text("[]"),
    "format 99": lambda path: edit(array_files.sidecar(path), format=99),
    "shape and dtype": lambda path: np.save(path, np.zeros((11, 4, 3, 2), np.uint8)),
    "describe the classes": lambda path: edit(array_files.sidecar(path), counts=[1, 2, 3, 9]),
    "describe the classes of": lambda path: edit(array_files.sidecar(path), names=None),
}


def test_write_read_round_trip(some_arrays, tmp_path):
    array_files.write(some_arrays, tmp_path / "a.npy", "test")
    assert same(array_files.read(tmp_path / "a.npy", verify=True, source="test"), some_arrays)
    assert sorted(f.name for f in tmp_path.iterdir()) == ["a.json", "a.npy"]
    assert np.array_equal(np.load(tmp_path / "a.npy", allow_pickle=False), some_arrays.examples)


@pytest.mark.parametrize("message", DAMAGE)
def test_damaged_file_raises(some_arrays, tmp_path, message):
    path = tmp_path / "a.npy"
    array_files.write(some_arrays, path, "test")
    DAMAGE[message](path)
    with pytest.raises(InnerloopError, match=message):
        array_files.read(path, verify=True)


def test_pickle_is_never_loaded(some_arrays, tmp_path):
    path = tmp_path / "a.npy"
    array_files.write(some_arrays, path, "test")
    np.save(path, np.array([{"a": 1}], object), allow_pickle=True)
    with pytest.raises(InnerloopError, match="not an array file"):
        array_files.read(path, verify=True)


def test_failed_write_keeps_existing_file(some_arrays, tmp_path):
    path = tmp_path / "a.npy"
    array_files.write(some_arrays, path, "test")
    layout = array_files.Layout((2, 4, 3, 1), np.dtype(np.uint8), np.array([2]), ("x",))

    def blocks():
        yield np.zeros((1, 4, 3, 1), np.uint8)
        raise OSError("No space left on device")

    with pytest.raises(OSError, match="No space"):
        array_files.write_blocks(blocks(), path, layout, "test")
    assert same(array_files.read(path, verify=True), some_arrays)
    assert sorted(f.name for f in tmp_path.iterdir()) == ["a.json", "a.npy"]


class Builder:
    def __init__(self, data: ClassArrays) -> None:
        self.data, self.calls = data, 0

    def __call__(self) -> ClassArrays:
        self.calls += 1
        return self.data


def test_cache_builds_once(some_arrays, empty_cache):
    build = Builder(some_arrays)
    first, second = cached("a-v1", "s", build), cached("a-v1", "s", build)
    assert build.calls == 1
    assert same(first, second)
    assert (empty_cache / "arrays" / "a-v1.npy").exists()


@pytest.mark.parametrize("message", DAMAGE)
def test_damaged_cache_warns_and_is_rebuilt(some_arrays, empty_cache, message):
    build = Builder(some_arrays)
    cached("a", "s", build)
    DAMAGE[message](empty_cache / "arrays" / "a.npy")
    with pytest.warns(UserWarning, match="rebuilding the cached arrays"):
        assert same(cached("a", "s", build), some_arrays)
    assert build.calls == 2
    assert same(cached("a", "s", build), some_arrays)  # whole again: no warning, no third build
    assert build.calls == 2


def test_cache_from_another_source_warns_and_is_rebuilt(some_arrays, empty_cache):
    cached("a", "one source", Builder(some_arrays))
    build = Builder(some_arrays.select(["a"]))
    with pytest.warns(UserWarning, match="another source"):
        assert cached("a", "another source", build).names == ("a",)


def test_unwritable_cache_warns_and_continues(some_arrays, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.warns(UserWarning, match="continuing without a cache"):
        assert same(cached("a", "s", Builder(some_arrays), tmp_path / "file"), some_arrays)


def test_memory_map_select_shares_memory(some_arrays, tmp_path):
    memmap.save(some_arrays, tmp_path / "a.npy")
    opened = memmap.open(tmp_path / "a.npy", verify=True)
    assert isinstance(opened.examples, np.memmap)
    assert same(opened, some_arrays)
    chosen = opened.select(["d", "b"])
    assert np.shares_memory(chosen.examples, opened.examples)
    np.testing.assert_array_equal(chosen.rows(0), some_arrays.rows(3))
    memmap.save(chosen, tmp_path / "b.npy")
    assert same(memmap.open(tmp_path / "b.npy"), some_arrays.select(["d", "b"]))


def test_float32_memory_map_is_not_scanned_on_open(tmp_path):
    rows = np.ones((3, 2, 2, 1), np.float32)
    memmap.save(ClassArrays.from_lists([rows], ["a"]), tmp_path / "a.npy")
    content = np.load(tmp_path / "a.npy", mmap_mode="r+")
    content[0] = np.nan
    content.flush()
    assert memmap.open(tmp_path / "a.npy").examples.dtype == np.float32
    with pytest.raises(InnerloopError, match="checksum"):
        memmap.open(tmp_path / "a.npy", verify=True)


def test_invalid_memory_map_paths_raise(some_arrays, tmp_path):
    with pytest.raises(InnerloopError, match="end in .npy"):
        memmap.save(some_arrays, tmp_path / "a.bin")
    (tmp_path / "file").write_text("")
    with pytest.raises(InnerloopError, match="cannot be written"):
        memmap.save(some_arrays, tmp_path / "file" / "a.npy")
    with pytest.raises(InnerloopError, match="is missing"):
        memmap.open(tmp_path / "none.npy")


def test_build_reads_image_folder(tmp_path, picture_tree):
    picture_tree(tmp_path / "tree", {"cat": 3, "ant": 2})
    built = memmap.build(tmp_path / "tree", tmp_path / "out.npy", size=4)
    assert isinstance(built.examples, np.memmap)
    assert built.examples.shape == (5, 4, 4, 3)
    assert built.names == ("ant", "cat")
    assert built.examples[:, 0, 0, 0].tolist() == [10, 11, 0, 1, 2]
    assert same(memmap.open(tmp_path / "out.npy", verify=True), built)


def test_build_with_unreadable_image_leaves_no_files(tmp_path, picture_tree):
    picture_tree(tmp_path / "tree", {"ant": 2})
    bad = tmp_path / "tree" / "ant" / "01.png"
    bad.write_bytes(bad.read_bytes()[:45])
    with pytest.raises(InnerloopError, match="01.png: is not a readable image"):
        memmap.build(tmp_path / "tree", tmp_path / "out.npy")
    assert [f.name for f in tmp_path.iterdir()] == ["tree"]


def test_write_interrupted_before_sidecar_is_detected(some_arrays, tmp_path, monkeypatch):
    """Same shape, other content: only the missing JSON can tell that the old one does not belong to it."""
    path = tmp_path / "a.npy"
    memmap.save(some_arrays, path)

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(array_files, "_write_sidecar", stop)
        with pytest.raises(KeyboardInterrupt):
            memmap.save(some_arrays.select(["d", "c", "b", "a"]), path, overwrite=True)
    with pytest.raises(InnerloopError, match="or not valid JSON"):
        memmap.open(path)


def test_build_holds_one_image_at_a_time(tmp_path, picture_tree):
    import tracemalloc

    picture_tree(tmp_path / "tree", {"ant": 60, "bee": 40}, size=(120, 120))
    memmap.build(tmp_path / "tree", tmp_path / "warm.npy", size=8)  # the decoders are loaded now
    tracemalloc.start()
    built = memmap.build(tmp_path / "tree", tmp_path / "out.npy")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert built.examples.nbytes == 100 * 120 * 120 * 3
    assert peak < built.examples.nbytes / 4
