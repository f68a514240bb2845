"""mini-ImageNet (Vinyals et al. 2016, split of Ravi and Larochelle 2017): 64 / 16 / 20 classes of 600 images.

ImageNet's licence does not allow redistribution, so there is no download: provide the files in one of the two
usual layouts, `root/{train,val,test}/nXXXXXXXX/*.jpg`, or `root/images/*.jpg` with `train.csv`, `val.csv` and
`test.csv` (header `filename,label`).
"""

import csv
import io
import os
import warnings
from collections.abc import Iterable, Iterator
from pathlib import Path

from innerloop.errors import InnerloopError
from innerloop.io.digests import sha256
from innerloop.io.files import AnyPath, expanded
from innerloop.io.untrusted import TEXT, read_bytes
from innerloop.tasks.class_arrays import Splits
from innerloop.tasks.io import class_folders
from innerloop.tasks.io.cache import cached

WHO = "mini_imagenet.load"
PARTS = (("train",), ("val", "validation"), ("test",))
ROWS = 200_000
"""Most rows of a csv file; all of mini-ImageNet has 60 000 images."""

COLUMNS = 100
CLASSES, PER_CLASS = (64, 16, 20), 600
GET = (
    "make mini-ImageNet from ImageNet (ILSVRC 2012) with the csv files of Ravi and Larochelle 2017, and pass"
    " the folder that contains train/, val/ and test/, or images/, train.csv, val.csv and test.csv"
)


def load(root: AnyPath, *, size: int = 84) -> Splits:
    """Load mini-ImageNet as class arrays `[600 * classes, size, size, 3]` uint8, resized with Lanczos as in MAML.

    The decoded images are cached, identified by the names, sizes and times of their files, and read from the
    cache as a memory map. A warning reports numbers of classes or images that differ from the published ones.

    Args:
        root: the folder, in either layout.
        size: side of the images.

    Raises:
        InnerloopError: if the folder or layout is not found, a csv file is malformed, an image is missing or
            unreadable, or a class is in two sets.
    """
    folder = expanded(root, WHO)
    parts = _parts(folder)
    class_folders.check_disjoint(parts, WHO)
    _warn_if_unusual(parts)
    files = {name: paths for part in parts for name, paths in part.items()}
    name, source = f"mini-imagenet-v2-{size}-{_key(folder)}", _listing(files)
    data = cached(name, source, lambda: class_folders.read(files, size, 3))
    return class_folders.split_classes(data, parts)


def _parts(root: Path) -> list[class_folders.Files]:
    folders = [next((root / name for name in names if (root / name).is_dir()), None) for names in PARTS]
    tables = [
        next((root / f"{name}.csv" for name in names if (root / f"{name}.csv").is_file()), None)
        for names in PARTS
    ]
    if (root / "images").is_dir() and all(tables):
        return [_table(table, root / "images") for table in tables if table]
    if all(folders):
        return [class_folders.list_classes(folder, WHO) for folder in folders if folder]
    raise InnerloopError(WHO, "found neither of the usual layouts", got=f"root {str(root)!r}", hint=GET)


def _table(table: Path, images: Path) -> class_folders.Files:
    """Read one csv file: the image files of each label, in the order of the file."""
    files: dict[str, list[Path]] = {}
    try:
        text = io.TextIOWrapper(io.BytesIO(read_bytes(table, TEXT)), encoding="utf-8-sig", newline="")
        for name, label in _rows(text, table):
            files.setdefault(label, []).append(_image(name, images, table))
    except (UnicodeDecodeError, csv.Error) as trouble:
        raise InnerloopError(str(table), "is not a csv text file", got=trouble) from None
    if not files:
        raise InnerloopError(str(table), "must list at least one image", got=0)
    return files


def _rows(lines: Iterable[str], table: Path) -> Iterator[tuple[str | None, str]]:
    """File name and label of each row."""
    rows = csv.DictReader(lines)
    if len(rows.fieldnames or ()) > COLUMNS:  # every row becomes a dict of all of them
        raise InnerloopError(
            str(table), f"must have at most {COLUMNS} columns", got=len(rows.fieldnames or ())
        )
    if not {"filename", "label"} <= set(rows.fieldnames or ()):
        raise InnerloopError(str(table), "must have the header filename,label", got=rows.fieldnames)
    for number, row in enumerate(rows, 2):
        if number > ROWS:
            raise InnerloopError(str(table), f"must have at most {ROWS} rows")
        if row["label"] is None:
            raise InnerloopError(f"{table}, row {number}", "must have a file name and a label")
        yield row["filename"], row["label"]


def _image(name: str | None, images: Path, table: Path) -> Path:
    if not name or Path(name).name != name or "\0" in name or len(name) > 255:
        raise InnerloopError(str(table), "must list plain file names", got=repr(name))
    if not (images / name).is_file():
        raise InnerloopError(str(table), f"lists an image that is not in {images}", got=repr(name))
    return images / name


def _warn_if_unusual(parts: list[class_folders.Files]) -> None:
    classes = tuple(len(part) for part in parts)
    counts = {len(paths) for part in parts for paths in part.values()}
    if classes != CLASSES or counts != {PER_CLASS}:
        got = f"{' / '.join(map(str, classes))} classes of {min(counts)} to {max(counts)} images"
        warnings.warn(f"{WHO}: this is not all of mini-ImageNet: {got}", stacklevel=3)


def _key(root: Path) -> str:
    return sha256([os.fsencode(root.resolve())]).hex()[:12]


def _listing(files: class_folders.Files) -> str:
    """sha256 over class, path, size and time of every file, which changes whenever a file does."""
    found = ((name, path, path.stat()) for name, paths in files.items() for path in paths)
    lines = (f"{name}\0{path}\0{about.st_size}\0{about.st_mtime_ns}\n" for name, path, about in found)
    return sha256(line.encode("utf-8", "surrogateescape") for line in lines).hex()  # a name need not be UTF-8
