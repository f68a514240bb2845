"""Class arrays on disk: a plain `.npy` file of the examples, and next to it a JSON file that describes them.

The JSON file contains the format version, the source of the data, the shape, the dtype, the sha256 of the array and
the classes. Nothing is pickled. Both files are written under another name and then renamed; the old JSON file is
removed just before the array is replaced, and the new one is written last, so the two never describe different data.
"""

import json
import sys
import warnings
from collections.abc import Iterable, Iterator
from pathlib import Path
from tokenize import TokenError
from typing import NamedTuple

import numpy as np

from innerloop.errors import InnerloopError
from innerloop.io.digests import sha256
from innerloop.io.files import make_folder, replacing
from innerloop.io.untrusted import JsonObject, open_regular, read_object
from innerloop.tasks.class_arrays import ClassArrays, starts_of

FORMAT = 1
CHUNK = 1 << 24


class Layout(NamedTuple):
    """The contents of a file of class arrays, known before its examples are read."""

    shape: tuple[int, ...]
    dtype: np.dtype
    counts: np.ndarray
    names: tuple[str, ...]


def sidecar(path: Path) -> Path:
    """The JSON file next to an array file."""
    return path.with_suffix(".json")


def _digest(examples: np.ndarray) -> str:
    """sha256 of the array's bytes in C order, read in chunks."""
    rows = max(1, CHUNK // max(1, examples[:1].nbytes))
    starts = range(0, len(examples), rows)
    return sha256(np.ascontiguousarray(examples[i : i + rows]).data for i in starts).hex()


def write(data: ClassArrays, path: Path, source: str) -> None:
    """Write both files, class by class; `source` says where the examples came from.

    Raises:
        OSError: if the disk is full or cannot be written to.
    """
    shape = (int(data.counts.sum()), *data.shape)
    layout = Layout(shape, data.examples.dtype, data.counts, data.names)
    write_blocks((data.rows(i) for i in range(data.classes)), path, layout, source)


def write_blocks(blocks: Iterable[np.ndarray], path: Path, layout: Layout, source: str) -> None:
    """Write both files from blocks of rows, with one block in memory at a time.

    Raises:
        OSError: if the disk is full or cannot be written to.
    """
    with make_folder(path.parent), replacing(path) as temporary:
        digest = _write_npy(blocks, temporary, layout)
        sidecar(path).unlink(missing_ok=True)
    _write_sidecar(path, layout, source, digest)


def _write_npy(blocks: Iterable[np.ndarray], path: Path, layout: Layout) -> str:
    descr = np.lib.format.dtype_to_descr(layout.dtype)
    with path.open("wb") as file:
        header = {"descr": descr, "fortran_order": False, "shape": layout.shape}
        np.lib.format.write_array_header_1_0(file, header)

        def written() -> Iterator[memoryview]:
            for block in blocks:
                content = np.ascontiguousarray(block).data
                file.write(content)
                yield content

        return sha256(written()).hex()


def _write_sidecar(path: Path, layout: Layout, source: str, digest: str) -> None:
    content = {
        "format": FORMAT,
        "source": source,
        "sha256": digest,
        "shape": list(layout.shape),
        "dtype": layout.dtype.name,
        "counts": layout.counts.tolist(),
        "names": list(layout.names),
    }
    with replacing(sidecar(path)) as temporary:
        temporary.write_text(json.dumps(content), encoding="utf-8")


def read(path: Path, *, verify: bool, source: str | None = None) -> ClassArrays:
    """Read both files, with the examples as a memory map; check their sha256 if `verify`.

    Raises:
        InnerloopError: if a file is missing, damaged or of another format version, or not from `source` if that is
            given.
    """
    about = _about(path)
    if about.get("format") != FORMAT:
        raise _damaged(path, f"has format {about.get('format')!r}, but this version reads {FORMAT}")
    if source is not None and about.get("source") != source:
        raise _damaged(path, "was made from another source", about.get("source"))
    examples = _examples(path)
    if [*examples.shape] != about.get("shape") or examples.dtype.name != about.get("dtype"):
        raise _damaged(path, "does not have the shape and dtype that its JSON file states", examples.shape)
    data = _class_arrays(path, examples, about)
    if verify and _digest(examples) != about.get("sha256"):
        raise _damaged(path, "does not match its checksum")
    return data


def _about(path: Path) -> JsonObject:
    try:
        return read_object(sidecar(path))
    except InnerloopError as trouble:
        raise _damaged(sidecar(path), "is missing or not valid JSON", trouble) from trouble


def _examples(path: Path) -> np.ndarray:
    try:
        with open_regular(path, sys.maxsize) as file, warnings.catch_warnings():
            np.lib.format.read_magic(file)  # np.load would also open other kinds of files
            file.seek(0)
            warnings.simplefilter("ignore")  # about headers written by Python 2
            return np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError, TokenError, MemoryError, RecursionError, OverflowError) as trouble:
        raise _damaged(path, "is missing, truncated or not an array file", trouble) from trouble


def _class_arrays(path: Path, examples: np.ndarray, about: JsonObject) -> ClassArrays:
    try:
        counts = np.array(about["counts"], np.int32)
        return ClassArrays(examples, starts_of(counts), counts, tuple(about["names"]))
    except (KeyError, TypeError, ValueError, OverflowError) as trouble:
        raise _damaged(sidecar(path), "does not describe the classes of its array", trouble) from trouble


def _damaged(path: Path, wrong: str, got: object = None) -> InnerloopError:
    return InnerloopError(str(path), wrong, got=got, hint="delete it and create it again")
