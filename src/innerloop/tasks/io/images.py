"""Decoding an image, with errors that name it."""

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
from innerloop.tasks.io.pixels import DEEP, WHITE, Colour, coding_of, opaque, orientation, scale_key, upright

if TYPE_CHECKING:
    from PIL.Image import Image

MODES = {1: "L", 3: "RGB"}
FORMATS = ("PNG", "JPEG", "BMP", "GIF", "WEBP", "TIFF", "PPM")
"""Formats that are decoded, whatever a file's name: Pillow would run Ghostscript on PostScript named `x.png`."""

READ = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr", *DEEP)
"""Modes that are read. Files with 32 bits, floats or CIELAB do not say what their values mean as grey or colour."""

FILE = 1 << 29
"""Largest file in bytes: `PIXELS` of eight bytes each."""

PIXELS = 64_000_000
"""Largest image in pixels: beyond it, a small file may be a decompression bomb."""

SCANS = 100
"""Most scans in a JPEG; a progressive one has about ten. A scan of a few bytes costs a pass over the whole image."""

MARKER = re.compile(rb"\xff[^\x00\x01\xd0-\xd8\xff]")
"""A JPEG marker that begins a segment; it does not occur in compressed data."""
SCAN, END = b"\xff\xda", b"\xff\xd9"

SIDE = 65_535
"""Longest side, as in JPEG: shrinking an image of millions of rows takes much time and memory."""


def open_image(source: Path | bytes, who: str, remarks: list[str] | None = None) -> "Image":
    """Decode an image fully (for an animation, its first frame) and turn it upright.

    Args:
        source: a file, or its content.
        who: the image's name in error messages.
        remarks: a list that collects Pillow's warnings, at most one per image.

    Raises:
        InnerloopError: if the image is unreadable, truncated or larger than `PIXELS` or `SIDE`.
    """
    with _reporting_errors(who, remarks), _opened(source) as file:
        image = _header(file, who)
        scale_key(image)
        image.load()
        return upright(image)


def peek(path: Path) -> tuple[int, int, int]:
    """Width, height (upright) and channels of an image file, from its header.

    Raises:
        InnerloopError: if the header is unreadable.
    """
    with _reporting_errors(str(path)), _opened(path) as file:
        image = _header(file, str(path))
        channels = channels_of(image)  # before the orientation, for which Pillow loads a PNG
        return *_upright_size(image), channels


def _upright_size(image: "Image") -> tuple[int, int]:
    """Width and height as `upright` leaves them."""
    tags: Any = getattr(image, "tag_v2", None)  # for TIFFs, as some Pillow versions swap their sides early
    width, height = image.size if tags is None else (tags[256], tags[257])
    return (height, width) if width != height and orientation(image) > 4 else (width, height)


def _opened(source: Path | bytes) -> Any:
    return io.BytesIO(source) if isinstance(source, bytes) else open_regular(source, FILE)


def _header(file: Any, who: str) -> "Image":
    import PIL.Image

    try:
        image = PIL.Image.open(file, formats=FORMATS)
    except PIL.UnidentifiedImageError:  # its own message shows the address of an object
        hint = f"replace or remove it; the supported formats are {', '.join(FORMATS)}"
        raise InnerloopError(who, "is not a readable image", hint=hint) from None
    if image.width * image.height > PIXELS:
        raise InnerloopError(who, f"the image has more than {PIXELS} pixels", got=image.size)
    if max(image.size) > SIDE:
        raise InnerloopError(who, f"the image has a side of more than {SIDE} pixels", got=image.size)
    _check_work(file, image, who)
    unclear = image.format == "TIFF" and image.mode in DEEP and not _plain(image)
    if image.mode not in READ or unclear:
        hint = "save it as an 8-bit PNG"
        raise InnerloopError(
            who, "is an image with an unsupported colour format", got=f"mode {image.mode}", hint=hint
        )
    return image


def _check_work(file: object, image: "Image", who: str) -> None:
    """Raise InnerloopError for an image that takes far more work or memory than its size suggests."""
    if image.format == "TIFF":
        tags: Any = getattr(image, "tag_v2", {})
        sides = [side for tag in (322, 323) for side in _numbers(tags.get(tag, 1))]
        if math.prod(sides) > PIXELS:
            raise InnerloopError(who, f"the image has tiles of more than {PIXELS} pixels", got=sides)
    if image.format in ("JPEG", "MPO") and (scans := _scans(file)) > SCANS:
        raise InnerloopError(who, f"the image has more than {SCANS} scans", got=scans, hint="save it again")


def _numbers(value: object) -> tuple[Any, ...]:
    return value if isinstance(value, tuple) else (value,)


def _scans(file: Any) -> int:
    """The number of scans in a JPEG; counting stops just beyond `SCANS`."""
    place, found, at = file.tell(), 0, 2
    file.seek(0)
    content = file.read()
    file.seek(place)
    while found <= SCANS and (marker := MARKER.search(content, at)) and marker[0] != END:
        found += marker[0] == SCAN
        at = marker.end() + int.from_bytes(content[marker.end() : marker.end() + 2], "big")
    return found


def _plain(image: "Image") -> bool:
    """Whether a greyscale TIFF has 16 unsigned bits with zero as black."""
    tags: Any = getattr(image, "tag_v2", {})
    return tags.get(258) == (16,) and tags.get(339, (1,)) == (1,) and tags.get(262) == 1


@contextmanager
def _reporting_errors(who: str, remarks: list[str] | None = None) -> Iterator[None]:
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
            who, "is not a readable image", got=trouble, hint="replace or remove it"
        ) from trouble


def warn_of_remarks(remarks: list[str]) -> None:
    """Report Pillow's warnings about images, if any, as one warning."""
    if remarks:
        many = counted(len(remarks), "image")
        text = f"innerloop: Pillow warned about {many}, but could read them; the first: {remarks[0]}"
        warnings.warn(text, stacklevel=2)


def channels_of(image: "Image") -> int:
    """The channels needed for this image: 1 for greyscale and bilevel, otherwise 3; transparency is composited."""
    grey = image.mode in ("1", "L", "LA", *DEEP) or coding_of(image) == "LA;16B"
    return 1 if grey else 3


def to_array(image: "Image", size: int | None, channels: int, background: Colour = WHITE) -> np.ndarray:
    """An image as an array.

    Args:
        image: from `open_image`.
        size: resize to `size` x `size` (Lanczos); None: do not resize.
        channels: 1 for greyscale, 3 for colour.
        background: the colour on which transparent parts are composited.

    Returns:
        `[height, width, channels]` uint8.
    """
    import PIL.Image

    if size is not None and size**2 > PIXELS:
        raise InnerloopError("size", f"an image has at most {PIXELS} pixels", got=f"{size} x {size}")
    # Convert before resizing: Pillow resizes bilevel and palette images without a filter.
    image = opaque(image, background).convert(MODES[channels])
    if size is not None and image.size != (size, size):
        image = image.resize((size, size), PIL.Image.Resampling.LANCZOS)
    return np.asarray(image, np.uint8).reshape(image.height, image.width, channels)
