"""Omniglot (Lake et al. 2015): 1623 handwritten characters of 50 alphabets, 20 drawers each.

Source: `python/images_background.zip` and `python/images_evaluation.zip` from the repository
brendenlake/omniglot, MIT licence. Classes are named `Alphabet/characterNN`. The rotated copies of classes used
for training in the papers are made by `innerloop.tasks.episodes.with_rotations`, not here.
"""

import hashlib
import re
from typing import Literal

import numpy as np

from innerloop.errors import InnerloopError, check_choice, check_count
from innerloop.io.files import AnyPath
from innerloop.tasks.class_arrays import ClassArrays, Splits
from innerloop.tasks.io import class_splits
from innerloop.tasks.io.archives import Limits, read_zip
from innerloop.tasks.io.cache import cached
from innerloop.tasks.io.download import Source, locate
from innerloop.tasks.io.images import open_image

_HOME = "https://github.com/brendenlake/omniglot/raw/master/python/"
FILE = 32 << 20
"""Largest size of an archive in bytes; the official ones have 9 and 6 million."""

BACKGROUND = Source(
    "omniglot/images_background.zip",
    _HOME + "images_background.zip",
    "68d2efa1b9178cc56df9314c21c6e718",
    FILE,
)
EVALUATION = Source(
    "omniglot/images_evaluation.zip",
    _HOME + "images_evaluation.zip",
    "6b91aef0f799c5bb55b94e3f2daec811",
    FILE,
)
PIXELS = "75a36f7ce605ee617d0c45021613841aec979e079f71594e885aba52a7c003ce"
"""sha256 over all 32 460 images sorted by name, as rows of packed bits, independent of the archive format."""

SIDE, DRAWERS, CLASSES = 105, 20, 1623
VALIDATION_ALPHABETS = ("Syriac_(Estrangelo)", "Tagalog", "Tifinagh")
MEMBER = re.compile(r"images_(?:background|evaluation)/[^/]+/character\d+/\d+_\d+\.png")
LIMITS = Limits(member=64 << 10, total=64 << 20, members=100_000, file=FILE)

Resample = Literal["lanczos", "nearest"]


def load(
    split: Literal["maml", "background"] = "maml",
    *,
    size: int = 28,
    root: AnyPath | None = None,
    resample: Resample = "lanczos",
) -> Splits:
    """Load Omniglot as class arrays `[20 * classes, size, size, 1]` uint8, ink 255 on background 0.

    Args:
        split: `maml`, 1100 / 100 / 423 of all 1623 characters, as in Finn et al. 2017. Their own shuffle depended
            on the order in which the file system listed folders and cannot be reproduced; this one is a seeded
            shuffle of the sorted names, stored as text files in the package. `background`: train on the
            background alphabets except the last three (869 characters), validate on those three (Estrangelo,
            Tagalog, Tifinagh: 95), test on the 659 evaluation characters, whose alphabets are all new.
        size: side of the images, resized from 105.
        root: a folder that contains `omniglot/images_background.zip` and `omniglot/images_evaluation.zip`.
        resample: `lanczos` filters while shrinking, as requested by the MAML code; `nearest` is what that code
            gets, because Pillow never filters bilevel images (thin strokes break).

    Raises:
        InnerloopError: if an argument is invalid, or the files are unavailable or not Omniglot's.
    """
    check_choice("omniglot.load", "split", split, ("maml", "background"))
    check_choice("omniglot.load", "resample", resample, ("lanczos", "nearest"))
    check_count("omniglot.load", "size", size, 1, 512)
    data = cached(f"omniglot-v1-{size}-{resample}", PIXELS, lambda: _build(size, resample, root))
    return class_splits.apply(data, "omniglot_maml") if split == "maml" else _by_alphabet(data)


def _by_alphabet(data: ClassArrays) -> Splits:
    test = class_splits.names("omniglot_evaluation", "test")
    background = [name for name in data.names if name not in set(test)]
    validation = [name for name in background if name.split("/")[0] in VALIDATION_ALPHABETS]
    train = [name for name in background if name not in set(validation)]
    return Splits(data.gather(train), data.gather(validation), data.gather(test))


def _build(size: int, resample: Resample, root: AnyPath | None) -> ClassArrays:
    classes: dict[str, list[np.ndarray]] = {}
    total = hashlib.sha256()
    for path in locate(BACKGROUND, EVALUATION, root=root):
        for member, content in read_zip(path, MEMBER, LIMITS):
            ink = _ink(content, f"{path}: {member}")
            total.update(np.packbits(ink).tobytes())
            _, alphabet, character, _ = member.split("/")
            classes.setdefault(f"{alphabet}/{character}", []).append(_resized(ink, size, resample))
    _check(classes, total.hexdigest())
    names = sorted(classes)
    return ClassArrays.from_lists([np.stack(classes[name]) for name in names], names)


def _ink(content: bytes, who: str) -> np.ndarray:
    """A boolean array `[105, 105]`, true where there is ink (black in the files)."""
    image = open_image(content, who)
    if image.size != (SIDE, SIDE) or image.mode not in ("1", "L"):
        got = f"{image.size}, mode {image.mode}"
        raise InnerloopError(who, "must be a black-and-white image of 105 x 105 pixels", got=got)
    return np.asarray(image.convert("L")) < 128


def _resized(ink: np.ndarray, size: int, resample: Resample) -> np.ndarray:
    """Shrink the black-on-white image as the papers do, then invert it: `[size, size, 1]` uint8."""
    from PIL import Image

    how = Image.Resampling.LANCZOS if resample == "lanczos" else Image.Resampling.NEAREST
    page = Image.fromarray(np.where(ink, 0, 255).astype(np.uint8)).resize((size, size), how)
    return 255 - np.asarray(page)[:, :, None]


def _check(classes: dict[str, list[np.ndarray]], sha256: str) -> None:
    odd = {len(drawers) for drawers in classes.values()} - {DRAWERS}
    if len(classes) != CLASSES or odd:
        got = f"{len(classes)} characters, {sum(map(len, classes.values()))} images"
        raise InnerloopError("omniglot.load", f"needs {CLASSES} characters of {DRAWERS} images", got=got)
    if sha256 != PIXELS:
        hint = "download both archives again from https://github.com/brendenlake/omniglot"
        raise InnerloopError(
            "omniglot.load", "the images are not Omniglot's", got=f"sha256 {sha256}", hint=hint
        )
