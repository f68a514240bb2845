"""Characters of matplotlib's fonts as images: which face contains which character, and its upright bitmap."""

from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from innerloop.errors import InnerloopError

if TYPE_CHECKING:
    from PIL.ImageFont import FreeTypeFont

DEJAVU = tuple(
    f"DejaVu{family}"
    for family in (
        *("Sans", "Sans-Bold", "Sans-Oblique", "Sans-BoldOblique"),
        *("SansMono", "SansMono-Bold", "SansMono-Oblique", "SansMono-BoldOblique"),
        *("Serif", "Serif-Bold", "Serif-Italic", "Serif-BoldItalic"),
    )
)
STIX = ("STIXGeneral", "STIXGeneralBol", "STIXGeneralItalic", "STIXGeneralBolIta")
COMPUTER_MODERN = ("cmr10", "cmb10", "cmss10", "cmti10", "cmtt10")  # in Unicode order for ASCII only
FACES = DEJAVU + STIX + COMPUTER_MODERN
MARGIN = 0.14
"""Empty fraction at each side of a bitmap, so that distorted glyphs are not cut off."""


def faces_of(codes: Sequence[int]) -> list[list[str]]:
    """The faces that contain each character, in the order of `FACES`."""
    maps = {face: _charmap(face) for face in FACES}
    return [
        [f for f in FACES if code in maps[f] and (code < 128 or f not in COMPUTER_MODERN)] for code in codes
    ]


def bitmap(code: int, face: str, side: int) -> np.ndarray:
    """The character centred in a `[side, side]` float32 array, ink 1 on 0, with its aspect ratio preserved.

    Every glyph is scaled to the same box, so characters that differ only in size or position look the same.
    """
    from PIL import Image

    mask: Any = _font(face, 2 * side).getmask(chr(code), mode="L")  # Pillow's core is untyped
    if 0 in mask.size:
        return np.zeros((side, side), np.float32)
    ink = Image.frombytes("L", mask.size, bytes(mask))
    ink = ink.crop(ink.getbbox())
    box = side * (1 - 2 * MARGIN)
    scale = box / max(ink.size)
    width, height = (max(1, round(length * scale)) for length in ink.size)
    page = Image.new("L", (side, side))
    page.paste(ink.resize((width, height), Image.Resampling.BOX), ((side - width) // 2, (side - height) // 2))
    return np.asarray(page, np.float32) / 255


def blurred(bitmaps: np.ndarray) -> np.ndarray:
    """`[..., side, side]` smoothed with the binomial filter 1 2 1 along both axes."""
    for axis in (-2, -1):
        bitmaps = (np.roll(bitmaps, 1, axis) + 2 * bitmaps + np.roll(bitmaps, -1, axis)) / 4
    return bitmaps


def _path(face: str) -> Path:
    import matplotlib

    path = Path(matplotlib.get_data_path()) / "fonts" / "ttf" / f"{face}.ttf"
    if not path.is_file():
        raise InnerloopError(
            "glyphs", "a font of matplotlib is missing", got=path, hint="reinstall matplotlib"
        )
    return path


@cache
def _charmap(face: str) -> frozenset[int]:
    from matplotlib.ft2font import FT2Font

    return frozenset(FT2Font(str(_path(face))).get_charmap())


@cache
def _font(face: str, size: int) -> "FreeTypeFont":
    from PIL import ImageFont

    return ImageFont.truetype(str(_path(face)), size, layout_engine=ImageFont.Layout.BASIC)
