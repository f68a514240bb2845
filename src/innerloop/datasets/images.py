"""Decoding one picture, told by name when it is not what it should be."""

import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from innerloop.errors import InnerloopError

if TYPE_CHECKING:
    from PIL.Image import Image

MODES = {1: "L", 3: "RGB"}
PIXELS = 64_000_000
"""Largest picture read, in pixels: beyond it a small file may be a decompression bomb."""

SIDE = 65_535
"""Longest side read, JPEG's own bound: to shrink a picture of millions of rows takes long and much memory."""


def open_image(source: Path | bytes, who: str) -> "Image":
    """Decode a picture fully (the first frame of an animation).

    Raises:
        InnerloopError: the picture is unreadable, truncated or larger than `PIXELS` or `SIDE`; `who` names it.
    """
    with _trouble_told(who):
        image = _header(source, who)
        image.load()
        return image


def peek(path: Path) -> tuple[int, int, int]:
    """Width, height and channels of a picture file from its header.

    Raises:
        InnerloopError: the header is unreadable.
    """
    with _trouble_told(str(path)), _header(path, str(path)) as image:
        return image.width, image.height, channels_of(image)


def _header(source: Path | bytes, who: str) -> "Image":
    import PIL.Image

    image = PIL.Image.open(io.BytesIO(source) if isinstance(source, bytes) else source)
    if image.width * image.height > PIXELS:
        raise InnerloopError(who, f"the picture has more than {PIXELS} pixels", got=image.size)
    if max(image.size) > SIDE:
        raise InnerloopError(who, f"the picture has a side of more than {SIDE} pixels", got=image.size)
    return image


@contextmanager
def _trouble_told(who: str) -> Iterator[None]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow warns on odd but readable metadata
            yield
    except InnerloopError:
        raise
    except Exception as trouble:  # decoders raise many types on hostile bytes; all mean the same here
        raise InnerloopError(
            who, "is no readable picture", got=trouble, do="replace or remove it"
        ) from trouble


def channels_of(image: "Image") -> int:
    """Channels that hold this picture: 1 for grey and bilevel, else 3 (transparency is dropped)."""
    return 1 if image.mode in ("1", "L", "LA", "I", "I;16", "F") else 3


def to_array(image: "Image", size: int | None, channels: int) -> np.ndarray:
    """Resize to `size` x `size` if given (Lanczos) and give `[height, width, channels]` uint8."""
    import PIL.Image

    if image.mode in ("I", "I;16"):
        image = _narrow(image)
    image = image.convert(
        MODES[channels]
    )  # first: Pillow resizes bilevel and palette pictures without a filter
    if size is not None and image.size != (size, size):
        image = image.resize((size, size), PIL.Image.Resampling.LANCZOS)
    return np.asarray(image, np.uint8).reshape(image.height, image.width, channels)


def _narrow(image: "Image") -> "Image":
    """16-bit grey to 8-bit by dropping the low byte; Pillow's own conversion clips instead."""
    import PIL.Image

    values = np.asarray(image) >> 8  # in the picture's own type: a large one is hundreds of megabytes
    return PIL.Image.fromarray(
        np.clip(values, 0, 255, out=np.empty(values.shape, np.uint8), casting="unsafe")
    )
