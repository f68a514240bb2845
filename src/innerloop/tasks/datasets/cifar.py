"""CIFAR-100 (Krizhevsky 2009) split by class for few-shot learning: CIFAR-FS and FC100.

Source: `cifar-100-binary.tar.gz` from https://www.cs.toronto.edu/~kriz/cifar.html, offered for research with
a citation. The official train and test files are merged, 600 images per class, because the few-shot splits
are by class: CIFAR-FS 64 / 16 / 20 at random (Bertinetto et al. 2019), FC100 60 / 20 / 20 by superclass
(Oreshkin et al. 2018).
"""

import re
from pathlib import Path
from typing import Literal

import numpy as np

from innerloop.errors import InnerloopError, check_choice
from innerloop.io.digests import sha256
from innerloop.io.files import AnyPath
from innerloop.tasks.class_arrays import ClassArrays, Splits, starts_of
from innerloop.tasks.io import class_splits
from innerloop.tasks.io.archives import Limits, read_tar
from innerloop.tasks.io.cache import cached
from innerloop.tasks.io.download import Source, locate

FILE = 200_000_000
"""Largest size of the archive in bytes; the official one has 169 million."""

ARCHIVE = Source(
    "cifar-100-binary.tar.gz",
    "https://www.cs.toronto.edu/~kriz/cifar-100-binary.tar.gz",
    "03b5dce01913d631647c71ecec9e9cb8",
    FILE,
)
PIXELS = "3d00dc5943c17478aa141d1df81e5db3250bb457e1804f7761026fb8620e122f"
"""sha256 over the sorted fine labels and sha256 of every image, independent of the order in the files."""

FINE_NAMES = "fine_label_names.txt"
FILES = ("train.bin", "test.bin", FINE_NAMES)
MEMBER = re.compile(r"cifar-100-binary/(?:train\.bin|test\.bin|fine_label_names\.txt)")
LIMITS = Limits(member=160_000_000, total=200_000_000, ratio=20.0, members=100, file=FILE)
CLASSES, PER_CLASS, RECORD = 100, 600, 2 + 3 * 32 * 32
WHO = "cifar.load"


def load(split: Literal["cifar_fs", "fc100"] = "cifar_fs", *, root: AnyPath | None = None) -> Splits:
    """Load CIFAR-100 as class arrays `[600 * classes, 32, 32, 3]` uint8, with a published class split.

    Args:
        split: `cifar_fs` (64 / 16 / 20 classes) or `fc100` (60 / 20 / 20 classes).
        root: a folder that contains `cifar-100-binary.tar.gz`.

    Raises:
        InnerloopError: if the split is unknown, or the archive is unavailable or not CIFAR-100.
    """
    check_choice(WHO, "split", split, ("cifar_fs", "fc100"))
    return class_splits.apply(cached("cifar-100-v1", PIXELS, lambda: _build(root)), split)


def _build(root: AnyPath | None) -> ClassArrays:
    (path,) = locate(ARCHIVE, root=root)
    parts = {name.split("/")[1]: content for name, content in read_tar(path, MEMBER, LIMITS)}
    missing = [file for file in FILES if file not in parts]
    if missing:
        raise InnerloopError(str(path), "is not the binary version of CIFAR-100", got=f"no {missing[0]}")
    names = parts[FINE_NAMES].decode("ascii", "replace").split()
    labels, pictures = _records(path, parts["train.bin"] + parts["test.bin"])
    order, digest = _in_order(labels, pictures)
    _check(path, names, labels, digest)
    examples = pictures[order].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
    counts = np.full(CLASSES, PER_CLASS, np.int32)
    return ClassArrays(np.ascontiguousarray(examples), starts_of(counts), counts, tuple(names))


def _records(path: Path, content: bytes) -> tuple[np.ndarray, np.ndarray]:
    """Fine labels `[examples]` and images `[examples, 3072]`, channels first."""
    if len(content) != CLASSES * PER_CLASS * RECORD:
        wanted = f"must contain {CLASSES * PER_CLASS} records of {RECORD} bytes"
        raise InnerloopError(str(path), wanted, got=f"{len(content)} bytes")
    records = np.frombuffer(content, np.uint8).reshape(-1, RECORD)
    return records[:, 1], records[:, 2:]


def _in_order(labels: np.ndarray, pictures: np.ndarray) -> tuple[np.ndarray, str]:
    """The order by label, then by each image's sha256, and the sha256 over both in that order.

    An order that depends only on the content gives the same class arrays however the records were packed.
    """
    keys = [bytes([label]) + sha256([row.tobytes()]) for label, row in zip(labels, pictures, strict=True)]
    order = sorted(range(len(keys)), key=keys.__getitem__)
    return np.array(order), sha256(keys[i] for i in order).hex()


def _check(path: Path, names: list[str], labels: np.ndarray, digest: str) -> None:
    counts = np.bincount(labels, minlength=CLASSES)
    if len(names) != CLASSES or len(counts) != CLASSES or (counts != PER_CLASS).any():
        got = f"{len(names)} names, classes of {counts.min()} to {counts.max()} images"
        raise InnerloopError(str(path), f"must contain {CLASSES} classes of {PER_CLASS} images", got=got)
    if digest != PIXELS:
        hint = f"download it again from {ARCHIVE.url}"
        raise InnerloopError(str(path), "the images are not CIFAR-100's", got=f"sha256 {digest}", hint=hint)
