"""Decoding one picture, told by name when it is not what it should be."""

import io
import math
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from innerloop.errors import InnerloopError
from innerloop.io.text import counted
from innerloop.io.untrusted import open_regular
from innerloop.tasks.io.pixels import (
    DEEP,
    WHITE,
    Colour,
    coding_of,
    opaque,
    orientation,
    scale_key,
    upright,
)

if TYPE_CHECKING:
    from PIL.Image import Image

MODES = {1: "L", 3: "RGB"}
FORMATS = ("PNG", "JPEG", "BMP", "GIF", "WEBP", "TIFF", "PPM")
"""What is decoded, whatever the name of a file: Pillow would run Ghostscript on PostScript that is called `x.png`."""

READ = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr", *DEEP)
"""Modes that are read. What 32 bits, fractions and CIELAB mean as grey or colour is not told by such a file."""

FILE = 1 << 29
"""Bytes of a file at most: `PIXELS` of eight bytes each."""

PIXELS = 64_000_000
"""Largest picture read, in pixels: beyond it a small file may be a decompression bomb."""

SCANS = 100
"""Scans of a JPEG: a progressive one has about ten. Each costs a pass over the whole picture, in a few bytes."""

MARKER = re.compile(rb"\xff[^\x00\x01\xd0-\xd8\xff]")
"""A marker of a JPEG that begins a segment; none is in compressed data."""
SCAN, END = b"\xff\xda", b"\xff\xd9"

SIDE = 65_535
"""Longest side read, JPEG's own bound: to shrink a picture of millions of rows takes long and much memory."""


def open_image(source: Path | bytes, who: str, remarks: list[str] | None = None) -> "Image":
    """Decode a picture fully (the first frame of an animation), upright.

    Args:
        source: a file, or its content.
        who: names it in errors.
        remarks: takes what Pillow warns of, one remark a picture.

    Raises:
        InnerloopError: the picture is unreadable, truncated or larger than `PIXELS` or `SIDE`.
    """
    with _trouble_told(who, remarks), _opened(source) as file:
        image = _header(file, who)
        scale_key(image)
        image.load()
        return upright(image)


def peek(path: Path) -> tuple[int, int, int]:
    """Width, height (upright) and channels of a picture file from its header.

    Raises:
        InnerloopError: the header is unreadable.
    """
    with _trouble_told(str(path)), _opened(path) as file:
        image = _header(file, str(path))
        channels = channels_of(image)  # first: Pillow loads a PNG where its orientation is asked for
        return *_upright_size(image), channels


def _upright_size(image: "Image") -> tuple[int, int]:
    """Width and height as `upright` leaves them."""
    tags: Any = getattr(image, "tag_v2", None)  # of a TIFF, whose sides some versions of Pillow swap at once
    width, height = image.size if tags is None else (tags[256], tags[257])
    return (height, width) if width != height and orientation(image) > 4 else (width, height)


def _opened(source: Path | bytes) -> Any:
    return io.BytesIO(source) if isinstance(source, bytes) else open_regular(source, FILE)


def _header(file: Any, who: str) -> "Image":
    import PIL.Image

    try:
        image = PIL.Image.open(file, formats=FORMATS)
    except PIL.UnidentifiedImageError:  # its own words show the address of an object
        do = f"replace or remove it; {', '.join(FORMATS)} are read"
        raise InnerloopError(who, "is no readable picture", do=do) from None
    if image.width * image.height > PIXELS:
        raise InnerloopError(who, f"the picture has more than {PIXELS} pixels", got=image.size)
    if max(image.size) > SIDE:
        raise InnerloopError(who, f"the picture has a side of more than {SIDE} pixels", got=image.size)
    _check_work(file, image, who)
    unclear = image.format == "TIFF" and image.mode in DEEP and not _plain(image)
    if image.mode not in READ or unclear:
        do = "save it as a PNG of 8 bits"
        raise InnerloopError(
            who,
            "is a picture whose colours are stored in a way that is not read",
            got=f"mode {image.mode}",
            do=do,
        )
    return image


def _check_work(file: object, image: "Image", who: str) -> None:
    """Raise InnerloopError for a picture that takes far more work or memory than its size says."""
    if image.format == "TIFF":
        tags: Any = getattr(image, "tag_v2", {})
        sides = [side for tag in (322, 323) for side in _numbers(tags.get(tag, 1))]
        if math.prod(sides) > PIXELS:
            raise InnerloopError(who, f"the picture has tiles of more than {PIXELS} pixels", got=sides)
    if image.format in ("JPEG", "MPO") and (scans := _scans(file)) > SCANS:
        raise InnerloopError(who, f"the picture has more than {SCANS} scans", got=scans, do="save it again")


def _numbers(value: object) -> tuple[Any, ...]:
    return value if isinstance(value, tuple) else (value,)


def _scans(file: Any) -> int:
    """How many scans a JPEG holds, counted no further than a little beyond `SCANS`."""
    place, found, at = file.tell(), 0, 2
    file.seek(0)
    content = file.read()
    file.seek(place)
    while found <= SCANS and (marker := MARKER.search(content, at)) and marker[0] != END:
        found += marker[0] == SCAN
        at = marker.end() + int.from_bytes(content[marker.end() : marker.end() + 2], "big")
    return found


def _plain(image: "Image") -> bool:
    """Whether a grey TIFF has 16 bits, without a sign, and black is zero."""
    tags: Any = getattr(image, "tag_v2", {})
    return tags.get(258) == (16,) and tags.get(339, (1,)) == (1,) and tags.get(262) == 1


@contextmanager
def _trouble_told(who: str, remarks: list[str] | None = None) -> Iterator[None]:
    try:
        with warnings.catch_warnings(record=True) as met:
            warnings.simplefilter("always")  # Pillow warns on odd but readable metadata
            yield
        if met and remarks is not None:
            remarks.append(f"{who}: {met[0].message}")
    except InnerloopError:
        raise
    except Exception as trouble:  # decoders raise many types on hostile bytes; all mean the same here
        raise InnerloopError(
            who, "is no readable picture", got=trouble, do="replace or remove it"
        ) from trouble


def tell_remarks(remarks: list[str]) -> None:
    """Say in one line that Pillow warned of some pictures, if it did."""
    if remarks:
        many = counted(len(remarks), "picture")
        text = f"innerloop: Pillow warns of {many}, which it could read; the first: {remarks[0]}"
        warnings.warn(text, stacklevel=2)


def channels_of(image: "Image") -> int:
    """Channels that hold this picture: 1 for grey and bilevel, else 3; transparency is composited."""
    grey = image.mode in ("1", "L", "LA", *DEEP) or coding_of(image) == "LA;16B"
    return 1 if grey else 3


def to_array(image: "Image", size: int | None, channels: int, background: Colour = WHITE) -> np.ndarray:
    """A picture as an array.

    Args:
        image: from `open_image`.
        size: resize to `size` x `size` (Lanczos); None: not at all.
        channels: 1 for grey, 3 for colour.
        background: what transparent parts are composited on.

    Returns:
        `[height, width, channels]` uint8.
    """
    import PIL.Image

    if size is not None and size**2 > PIXELS:
        raise InnerloopError("size", f"a picture has at most {PIXELS} pixels", got=f"{size} x {size}")
    # First: Pillow resizes bilevel and palette pictures without a filter.
    image = opaque(image, background).convert(MODES[channels])
    if size is not None and image.size != (size, size):
        image = image.resize((size, size), PIL.Image.Resampling.LANCZOS)
    return np.asarray(image, np.uint8).reshape(image.height, image.width, channels)
