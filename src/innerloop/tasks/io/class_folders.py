"""Folders of pictures, one folder per class: listing them, agreeing on one shape, reading them."""

import math
import warnings
from collections.abc import Iterator, Mapping, Sequence
from itertools import accumulate
from pathlib import Path

import numpy as np

from innerloop.errors import InnerloopError
from innerloop.io.safetensors_reader import largest
from innerloop.io.text import counted
from innerloop.tasks.class_arrays import ClassArrays, Splits, starts_of
from innerloop.tasks.io.images import open_image, peek, tell_remarks, to_array
from innerloop.tasks.io.pixels import WHITE, Colour

ENDINGS = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm")

LARGEST = 4096
"""Largest side that pictures are resized to."""

Files = Mapping[str, Sequence[Path]]
"""The picture files of each class."""


def list_classes(root: Path, who: str) -> dict[str, list[Path]]:
    """The picture files of every class folder below `root`, classes and files in sorted order.

    Hidden folders and files that are no pictures by their ending are passed over.

    Raises:
        InnerloopError: `root` is no folder, holds no class folder, or one of them holds no picture.
    """
    if not root.is_dir():
        raise InnerloopError(who, "must name an existing folder", got=repr(str(root)))
    folders = sorted(f for f in root.iterdir() if f.is_dir() and not f.name.startswith("."))
    if not folders:
        do = "put the pictures of each class in a folder of their own"
        raise InnerloopError(who, f"{root} holds no class folders", do=do)
    return {folder.name: _pictures(folder, who) for folder in folders}


def large_enough(files: Files, least: int, who: str) -> Files:
    """The classes with at least so many pictures; the others are told in a warning.

    Raises:
        InnerloopError: no class is left.
    """
    kept = {name: paths for name, paths in files.items() if len(paths) >= least}
    if not kept:
        most = max(map(len, files.values()))
        raise InnerloopError(
            who, f"no class has {least} pictures", got=f"{most} at most", do="lower the bound"
        )
    if left_out := [name for name in files if name not in kept]:
        what = (
            f"{len(left_out)} of {counted(len(files), 'class', 'classes')} with fewer than {least} pictures"
        )
        shown = ", ".join(left_out[:10]) + (", ..." if len(left_out) > 10 else "")
        warnings.warn(f"innerloop: {what} are left out: {shown}", stacklevel=2)
    return kept


def agree(files: Files, size: int | None, channels: int | None) -> tuple[int, int, int]:
    """The shape `(height, width, channels)` that all pictures get, from their headers alone.

    Raises:
        InnerloopError: sizes differ and no `size` is given, an unreadable picture, bad `size` or `channels`.
    """
    if channels not in (None, 1, 3):
        raise InnerloopError("channels", "must be 1 (grey) or 3 (colour)", got=channels)
    if size is not None and not 1 <= size <= LARGEST:
        raise InnerloopError("size", f"must be between 1 and {LARGEST}", got=size)
    if size is not None and channels is not None:
        return size, size, channels
    heads = {path: peek(path) for path in _all(files)}
    first, (width, height, _) = next(iter(heads.items()))
    odd = [path for path, head in heads.items() if head[:2] != (width, height)]
    if size is None and odd:
        got = "{} x {}".format(*heads[odd[0]][:2])
        do = "give `size` to resize all pictures"
        raise InnerloopError(str(odd[0]), f"must be {width} x {height} pixels like {first}", got=got, do=do)
    found = channels or max(head[2] for head in heads.values())
    return (size, size, found) if size is not None else (height, width, found)


def blocks(
    files: Files, size: int | None, shape: tuple[int, int, int], background: Colour = WHITE
) -> Iterator[np.ndarray]:
    """The pictures one after the other, each `[1, height, width, channels]` uint8; Pillow's warnings as one."""
    remarks: list[str] = []
    for path in _all(files):
        yield to_array(open_image(path, str(path), remarks), size, shape[2], background)[None]
    tell_remarks(remarks)


def read(
    files: Files, size: int | None, shape: tuple[int, int, int], background: Colour = WHITE
) -> ClassArrays:
    """All pictures as class arrays of the agreed shape, transparent parts composited on a colour.

    Raises:
        InnerloopError: an unreadable picture, by its name.
    """
    counts = np.array([len(paths) for paths in files.values()], np.int32)
    check_memory(int(counts.sum()), shape)
    examples = np.empty((int(counts.sum()), *shape), np.uint8)
    for row, picture in enumerate(blocks(files, size, shape, background)):
        examples[row] = picture[0]
    return ClassArrays(examples, starts_of(counts), counts, tuple(files))


def divide(data: ClassArrays, parts: Sequence[Files]) -> Splits:
    """The classes of each part as a view: a copy of the examples may be too large."""
    ends = accumulate(len(part) for part in parts)
    return Splits(
        *(_classes_between(data, end - len(part), end) for part, end in zip(parts, ends, strict=True))
    )


def _classes_between(data: ClassArrays, first: int, end: int) -> ClassArrays:
    """Classes that stand together, numbers `first` to `end - 1`."""
    counts = data.counts[first:end]
    start = int(data.starts[first])
    rows = data.examples[start : start + int(counts.sum())]
    return ClassArrays(rows, starts_of(counts), counts, data.names[first:end])


def check_memory(pictures: int, shape: tuple[int, int, int]) -> None:
    """Raise InnerloopError for more pictures of this shape than half of the machine's memory holds."""
    needs, bound = pictures * math.prod(shape), largest()
    if needs > bound:
        wrong = f"{pictures} pictures of {' x '.join(map(str, shape))} take more than {bound} bytes of memory"
        raise InnerloopError(
            "pictures", wrong, got=f"{needs} bytes", do="give a smaller size, or fewer pictures"
        )


def separate(parts: Sequence[Files], who: str) -> None:
    """Check that no class is in two parts.

    Raises:
        InnerloopError: the first class that is.
    """
    seen: set[str] = set()
    for part in parts:
        if both := sorted(seen & set(part)):
            do = "train, validation and test need different classes: the task is to learn new ones"
            raise InnerloopError(who, f"class {both[0][:80]!r} is in two of the sets", do=do)
        seen |= set(part)


def _pictures(folder: Path, who: str) -> list[Path]:
    found = sorted(f for f in folder.iterdir() if f.suffix.lower() in ENDINGS and not f.name.startswith("."))
    if not found:
        endings = ", ".join(ENDINGS)
        raise InnerloopError(
            who, f"class folder {folder} holds no pictures", do=f"known endings are {endings}"
        )
    return found


def _all(files: Files) -> Iterator[Path]:
    for paths in files.values():
        yield from paths
