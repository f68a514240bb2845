"""Class arrays on disk: a plain `.npy` of the examples, and beside it a JSON file that says what they are.

The JSON holds the format version, where the data came from, the shape, the dtype, the sha256 of the array and
the classes. Nothing is pickled. Both files are written under another name and then renamed; the old JSON goes
first and the new one comes last, so an array without its JSON is one whose writing was broken off.
"""

import contextlib
import hashlib
import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from innerloop.datasets.arrays import ClassArrays
from innerloop.errors import InnerloopError

FORMAT = 1
CHUNK = 1 << 24


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """A temporary path beside `path` that takes its place at the end, or disappears if the block fails."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent)
    os.close(handle)
    try:
        yield Path(name)
        _sync(Path(name))
        os.chmod(name, 0o666 & ~_umask())  # mkstemp's files are its owner's alone; a shared cache is not
        os.replace(name, path)
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(name)


def sidecar(path: Path) -> Path:
    """The JSON file beside an array file."""
    return path.with_suffix(".json")


def digest(examples: np.ndarray) -> str:
    """sha256 of the array's bytes in C order, read in chunks."""
    total = hashlib.sha256()
    rows = max(1, CHUNK // max(1, examples[:1].nbytes))
    for start in range(0, len(examples), rows):
        total.update(np.ascontiguousarray(examples[start : start + rows]).data)
    return total.hexdigest()


def write(data: ClassArrays, path: Path, source: str) -> None:
    """Write both files; `source` says where the examples came from.

    Raises:
        OSError: the disk is full or cannot be written.
    """
    sidecar(path).unlink(missing_ok=True)
    with whole_file(path) as temporary, temporary.open("wb") as file:
        np.lib.format.write_array(file, np.asarray(data.examples), allow_pickle=False)
    write_sidecar(data, path, source, digest(data.examples))


def write_sidecar(data: ClassArrays, path: Path, source: str, sha256: str) -> None:
    """Write the JSON file of an array file that already stands."""
    content = {
        "format": FORMAT,
        "source": source,
        "sha256": sha256,
        "shape": list(data.examples.shape),
        "dtype": data.examples.dtype.name,
        "starts": data.starts.tolist(),
        "counts": data.counts.tolist(),
        "names": list(data.names),
    }
    with whole_file(sidecar(path)) as temporary:
        temporary.write_text(json.dumps(content), encoding="utf-8")


def read(path: Path, *, mapped: bool, verify: bool, source: str | None = None) -> ClassArrays:
    """Read both files, the examples mapped or in memory, their sha256 checked if `verify`.

    Raises:
        InnerloopError: a file is missing, damaged, of another format version, or not from `source` if that is
            given.
    """
    about = _about(path)
    if about.get("format") != FORMAT:
        raise _damaged(path, f"has format {about.get('format')!r}, this version reads {FORMAT}")
    if source is not None and about.get("source") != source:
        raise _damaged(path, "was made from another source", about.get("source"))
    examples = _examples(path, mapped)
    if [*examples.shape] != about.get("shape") or examples.dtype.name != about.get("dtype"):
        raise _damaged(path, "does not have the shape and dtype that its JSON file states", examples.shape)
    if verify and digest(examples) != about.get("sha256"):
        raise _damaged(path, "does not match its checksum")
    return _class_arrays(path, examples, about)


def _about(path: Path) -> dict[str, Any]:
    try:
        about = json.loads(sidecar(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as trouble:
        raise _damaged(sidecar(path), "is missing or no JSON", trouble) from trouble
    if not isinstance(about, dict):
        raise _damaged(sidecar(path), "must hold one JSON object", type(about).__name__)
    return about


def _examples(path: Path, mapped: bool) -> np.ndarray:
    try:
        return np.load(path, mmap_mode="r" if mapped else None, allow_pickle=False)
    except (OSError, ValueError, EOFError) as trouble:
        raise _damaged(path, "is missing, cut short or no array file", trouble) from trouble


def _class_arrays(path: Path, examples: np.ndarray, about: dict[str, Any]) -> ClassArrays:
    try:
        starts, counts = (np.array(about[field], np.int32) for field in ("starts", "counts"))
        return ClassArrays(examples, starts, counts, tuple(about["names"]))
    except (KeyError, TypeError, ValueError, OverflowError) as trouble:
        raise _damaged(sidecar(path), "does not describe the classes of its array", trouble) from trouble


def _damaged(path: Path, wrong: str, got: object = None) -> InnerloopError:
    return InnerloopError(str(path), wrong, got=got, do="remove it and make it again")


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDWR)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _umask() -> int:
    mask = os.umask(0o077)
    os.umask(mask)
    return mask
