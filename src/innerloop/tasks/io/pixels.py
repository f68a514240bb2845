"""A decoded picture as it is meant to look: upright, opaque, with 8 bits a channel."""

from typing import TYPE_CHECKING

import numpy as np

from innerloop.errors import InnerloopError

if TYPE_CHECKING:
    from PIL.Image import Image

Colour = tuple[int, int, int]
"""Red, green and blue, 0..255 each."""

WHITE: Colour = (255, 255, 255)

DEEP = ("I", "I;16", "I;16L", "I;16B", "I;16N")
"""Modes of grey pictures of 16 bits."""

ORIENTATION = 0x0112
"""The EXIF tag; 1 is upright."""

UPRIGHT = (None, None, "FLIP_LEFT_RIGHT", "ROTATE_180", "FLIP_TOP_BOTTOM", "TRANSPOSE", "ROTATE_270")
UPRIGHT += ("TRANSVERSE", "ROTATE_90")
"""By the value of the tag, what turns a stored picture upright (EXIF 2.32, section 4.6.4)."""


def colour(name: str, who: str) -> Colour:
    """A colour by its CSS name or as `#rrggbb`.

    Raises:
        InnerloopError: there is no such colour; `who` asked for it.
    """
    from PIL import ImageColor

    try:
        found = ImageColor.getrgb(name)
    except ValueError:
        found = ()
    if len(found) != 3 or max(found) > 255:
        do = "give a name such as white or black, or #rrggbb"
        raise InnerloopError(who, "is no colour", got=repr(name)[:80], do=do)
    return found


def orientation(image: "Image") -> int:
    """The EXIF orientation, 1 to 8; 1 where there is none or the EXIF data are damaged."""
    try:
        value = image.getexif().get(ORIENTATION, 1)
    except Exception:  # Pillow raises many types on damaged EXIF data, which say nothing of the pixels
        return 1
    return value if value in range(1, 9) else 1


def upright(image: "Image") -> "Image":
    """A loaded picture as its EXIF orientation wants it shown. (Pillow has turned TIFFs by then.)"""
    from PIL.Image import Transpose

    turn = UPRIGHT[orientation(image)]
    return image if turn is None else image.transpose(Transpose[turn])


def opaque(image: "Image", background: Colour) -> "Image":
    """A picture without transparency, composited on a colour, and without deep grey."""
    import PIL.Image

    image = _narrow(image) if image.mode in DEEP else image
    if not _see_through(image):
        return image
    layer = image.convert("RGBA")
    canvas = PIL.Image.new("RGB", image.size, background)
    canvas.paste(layer, mask=layer.getchannel("A"))
    return canvas


def _see_through(image: "Image") -> bool:
    """Whether a picture has transparency of any kind. (Pillow's own question fails on a damaged palette.)"""
    layered = image.mode in ("LA", "PA", "RGBA") or "transparency" in image.info
    return layered or (image.palette is not None and image.palette.mode.endswith("A"))


def _narrow(image: "Image") -> "Image":
    """16-bit grey to 8-bit by dropping the low byte; Pillow's own conversion clips instead."""
    import PIL.Image

    deep = np.asarray(image)
    values = deep >> 8  # in the picture's own type: a large one is hundreds of megabytes
    grey = np.clip(values, 0, 255, out=np.empty(values.shape, np.uint8), casting="unsafe")
    narrow = PIL.Image.fromarray(grey)
    if isinstance(key := image.info.get("transparency"), int):
        narrow.putalpha(PIL.Image.fromarray(np.where(deep == key, np.uint8(0), np.uint8(255))))
    return narrow


SCALES = {"L;2": 85, "L;4": 17}
"""What Pillow multiplies the samples of a PNG of few bits by, but not the value that stands for transparent."""


def scale_key(image: "Image") -> None:
    """Bring the one transparent value of a PNG, as the file has it, to the scale of the pixels that are decoded."""
    key, coding = image.info.get("transparency"), coding_of(image)
    if isinstance(key, int) and coding in SCALES:
        image.info["transparency"] = key * SCALES[coding]
    if isinstance(key, tuple) and coding == "RGB;16B":
        image.info["transparency"] = tuple(value >> 8 for value in key)


def coding_of(image: "Image") -> str:
    """How the samples of a PNG that is not yet loaded are stored, in Pillow's words; empty for another picture."""
    tile = getattr(image, "tile", None)
    return str(tile[0][-1]) if image.format == "PNG" and tile else ""
