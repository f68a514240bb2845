"""Normalising decoded images: upright, opaque, with 8 bits per channel."""

from typing import TYPE_CHECKING

import numpy as np

from innerloop.errors import InnerloopError

if TYPE_CHECKING:
    from PIL.Image import Image

Colour = tuple[int, int, int]
"""Red, green and blue, each in 0..255."""

WHITE: Colour = (255, 255, 255)

DEEP = ("I", "I;16", "I;16L", "I;16B", "I;16N")
"""Modes of 16-bit greyscale images."""

ORIENTATION = 0x0112
"""The EXIF tag of the orientation; 1 is upright."""

UPRIGHT = (None, None, "FLIP_LEFT_RIGHT", "ROTATE_180", "FLIP_TOP_BOTTOM", "TRANSPOSE", "ROTATE_270")
UPRIGHT += ("TRANSVERSE", "ROTATE_90")
"""The transposition that turns a stored image upright, indexed by the tag (EXIF 2.32, section 4.6.4)."""


def colour(name: str, who: str) -> Colour:
    """A colour from its CSS name or `#rrggbb`.

    Raises:
        InnerloopError: on behalf of `who`, if there is no such colour.
    """
    from PIL import ImageColor

    try:
        found = ImageColor.getrgb(name)
    except ValueError:
        found = ()
    if len(found) != 3 or max(found) > 255:
        hint = "give a name such as white or black, or #rrggbb"
        raise InnerloopError(who, "is not a colour", got=repr(name)[:80], hint=hint)
    return found


def orientation(image: "Image") -> int:
    """The EXIF orientation, 1 to 8; 1 if there is none or the EXIF data are damaged."""
    try:
        value = image.getexif().get(ORIENTATION, 1)
    except Exception:  # Pillow raises many types on damaged EXIF data; the pixels may still be fine
        return 1
    return value if value in range(1, 9) else 1


def upright(image: "Image") -> "Image":
    """A loaded image, turned according to its EXIF orientation. (Pillow has already turned TIFFs.)"""
    from PIL.Image import Transpose

    turn = UPRIGHT[orientation(image)]
    return image if turn is None else image.transpose(Transpose[turn])


def opaque(image: "Image", background: Colour) -> "Image":
    """An image without transparency, composited on a colour, and with 16-bit grey reduced to 8 bits."""
    import PIL.Image

    image = _narrow(image) if image.mode in DEEP else image
    if not _see_through(image):
        return image
    layer = image.convert("RGBA")
    canvas = PIL.Image.new("RGB", image.size, background)
    canvas.paste(layer, mask=layer.getchannel("A"))
    return canvas


def _see_through(image: "Image") -> bool:
    """Whether an image has any kind of transparency. (Pillow's own check fails on a damaged palette.)"""
    layered = image.mode in ("LA", "PA", "RGBA") or "transparency" in image.info
    return layered or (image.palette is not None and image.palette.mode.endswith("A"))


def _narrow(image: "Image") -> "Image":
    """16-bit grey to 8-bit by dropping the low byte; Pillow's own conversion clips instead."""
    import PIL.Image

    deep = np.asarray(image)
    values = deep >> 8  # in the image's own dtype, since a large one takes hundreds of megabytes
    grey = np.clip(values, 0, 255, out=np.empty(values.shape, np.uint8), casting="unsafe")
    narrow = PIL.Image.fromarray(grey)
    if isinstance(key := image.info.get("transparency"), int):
        narrow.putalpha(PIL.Image.fromarray(np.where(deep == key, np.uint8(0), np.uint8(255))))
    return narrow


SCALES = {"L;2": 85, "L;4": 17}
"""Factors by which Pillow scales the samples of low-bit PNGs, but not the value that marks transparency."""


def scale_key(image: "Image") -> None:
    """Scale the single transparent value of a PNG, as stored in the file, to the decoded pixels."""
    key, coding = image.info.get("transparency"), coding_of(image)
    if isinstance(key, int) and coding in SCALES:
        image.info["transparency"] = key * SCALES[coding]
    if isinstance(key, tuple) and coding == "RGB;16B":
        image.info["transparency"] = tuple(value >> 8 for value in key)


def coding_of(image: "Image") -> str:
    """How a PNG that is not yet loaded stores its samples, in Pillow's notation; empty for other formats."""
    tile = getattr(image, "tile", None)
    return str(tile[0][-1]) if image.format == "PNG" and tile else ""
