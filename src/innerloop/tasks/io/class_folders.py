"""Folders of images, one folder per class: listing them, agreeing on one shape, reading them."""

import math
import warnings
from collections.abc import Iterator, Mapping, Sequence
from itertools import accumulate, chain
from pathlib import Path

import numpy as np

from innerloop.errors import InnerloopError
from innerloop.io.safetensors_reader import largest
from innerloop.io.text import counted, listed
from innerloop.tasks.class_arrays import ClassArrays, Splits, starts_of
from innerloop.tasks.io.images import open_image, peek, to_array, warn_of_remarks
from innerloop.tasks.io.pixels import WHITE, Colour

ENDINGS = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm")

LARGEST = 4096
"""Largest side to which images can be resized."""

Files = Mapping[str, Sequence[Path]]
"""The image files of each class."""


def list_classes(root: Path, who: str) -> dict[str, list[Path]]:
    """The image files of every class folder in `root`, with classes and files in sorted order.

    Hidden folders, hidden files and files without an image file ending are skipped.

    Raises:
        InnerloopError: if `root` is not a folder or has no class folders, or a class folder has no images.
    """
    if not root.is_dir():
        raise InnerloopError(who, "must name an existing folder", got=repr(str(root)))
    folders = sorted(f for f in root.iterdir() if f.is_dir() and not f.name.startswith("."))
    if not folders:
        hint = "put the images of each class in a separate folder"
        raise InnerloopError(who, f"{root} contains no class folders", hint=hint)
    return {folder.name: _pictures(folder, who) for folder in folders}


def drop_small_classes(files: Files, minimum: int, who: str) -> Files:
    """The classes with at least `minimum` images; a warning names the others.

    Raises:
        InnerloopError: if no class is left.
    """
    kept = {name: paths for name, paths in files.items() if len(paths) >= minimum}
    if not kept:
        maximum = max(map(len, files.values()))
        raise InnerloopError(
            who,
            f"no class has {counted(minimum, 'image')}",
            got=f"at most {maximum}",
            hint="lower `min_examples`",
        )
    if left_out := [name for name in files if name not in kept]:
        what = (
            f"{len(left_out)} of {counted(len(files), 'class', 'classes')} with fewer than {minimum} images"
        )
        warnings.warn(f"innerloop: {what} are left out: {listed(left_out, 10)}", stacklevel=2)
    return kept


def common_shape(files: Files, size: int | None, channels: int | None) -> tuple[int, int, int]:
    """The common shape `(height, width, channels)` for all images, determined from their headers alone.

    Raises:
        InnerloopError: if sizes differ and no `size` is given, an image is unreadable, or `size` or `channels` is
            invalid.
    """
    if channels not in (None, 1, 3):
        raise InnerloopError("channels", "must be 1 (greyscale) or 3 (colour)", got=channels)
    if size is not None and not 1 <= size <= LARGEST:
        raise InnerloopError("size", f"must be between 1 and {LARGEST}", got=size)
    if size is not None and channels is not None:
        return size, size, channels
    heads = {path: peek(path) for path in chain.from_iterable(files.values())}
    first, (width, height, _) = next(iter(heads.items()))
    odd = [path for path, head in heads.items() if head[:2] != (width, height)]
    if size is None and odd:
        got = "{} x {}".format(*heads[odd[0]][:2])
        hint = "give `size` to resize all images"
        raise InnerloopError(
            str(odd[0]), f"must be {width} x {height} pixels like {first}", got=got, hint=hint
        )
    found = channels or max(head[2] for head in heads.values())
    return (size, size, found) if size is not None else (height, width, found)


def blocks(files: Files, size: int | None, channels: int, background: Colour = WHITE) -> Iterator[np.ndarray]:
    """Yield the images one by one as `[1, height, width, channels]` uint8; Pillow's warnings are merged into one."""
    remarks: list[str] = []
    for path in chain.from_iterable(files.values()):
        yield to_array(open_image(path, str(path), remarks), size, channels, background)[None]
    warn_of_remarks(remarks)


def read(files: Files, size: int | None, channels: int | None, background: Colour = WHITE) -> ClassArrays:
    """All images as class arrays of their common shape, with transparent parts composited on a colour.

    Raises:
        InnerloopError: as for `common_shape`, or if an image is unreadable, naming it.
    """
    shape = common_shape(files, size, channels)
    counts = np.array([len(paths) for paths in files.values()], np.int32)
    check_memory(int(counts.sum()), shape)
    examples = np.empty((int(counts.sum()), *shape), np.uint8)
    for row, picture in enumerate(blocks(files, size, shape[2], background)):
        examples[row] = picture[0]
    return ClassArrays(examples, starts_of(counts), counts, tuple(files))


def split_classes(data: ClassArrays, parts: Sequence[Files]) -> Splits:
    """The classes of each part as views, since a copy of the examples could be too large."""
    ends = accumulate(len(part) for part in parts)
    return Splits(
        *(_classes_between(data, end - len(part), end) for part, end in zip(parts, ends, strict=True))
    )


def _classes_between(data: ClassArrays, first: int, end: int) -> ClassArrays:
    """Consecutive classes, numbers `first` to `end - 1`."""
    counts = data.counts[first:end]
    start = int(data.starts[first])
    rows = data.examples[start : start + int(counts.sum())]
    return ClassArrays(rows, starts_of(counts), counts, data.names[first:end])


def check_memory(pictures: int, shape: tuple[int, int, int]) -> None:
    """Raise InnerloopError if so many images of this shape would need more than half of the machine's memory."""
    needs, bound = pictures * math.prod(shape), largest()
    if needs > bound:
        wrong = f"{pictures} images of {' x '.join(map(str, shape))} take more than {bound} bytes of memory"
        raise InnerloopError(
            "images", wrong, got=f"{needs} bytes", hint="give a smaller size, or fewer images"
        )


def check_disjoint(parts: Sequence[Files], who: str) -> None:
    """Check that no class is in two parts.

    Raises:
        InnerloopError: if one is, naming the first.
    """
    seen: set[str] = set()
    for part in parts:
        if both := sorted(seen & set(part)):
            hint = "train, validation and test need different classes: the task is to learn new ones"
            raise InnerloopError(who, f"class {both[0][:80]!r} is in two of the sets", hint=hint)
        seen |= set(part)


def _pictures(folder: Path, who: str) -> list[Path]:
    found = sorted(f for f in folder.iterdir() if f.suffix.lower() in ENDINGS and not f.name.startswith("."))
    if not found:
        endings = ", ".join(ENDINGS)
        raise InnerloopError(
            who, f"class folder {folder} contains no images", hint=f"known endings are {endings}"
        )
    return found
