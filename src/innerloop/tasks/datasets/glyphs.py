"""Glyphs: a few-shot data set that needs no download, rendered from the fonts that ship with matplotlib.

The classes are 900 characters of 15 scripts, split by script: no script and no shape is in two parts. The
lists were selected by `tools/glyph_classes.py` in the repository. Each "drawer" of a character is one of the
font faces that contain it, with its own affine and elastic distortion and stroke weight. The images have the
format of Omniglot's, but are easier: use Omniglot for comparable numbers, and this set for a first run, for
tests and offline.

Several scripts, above all Canadian syllabics, contain rotated forms of one shape as different characters: do
not augment with rotated classes here.
"""

from typing import NamedTuple

import numpy as np

from innerloop.errors import InnerloopError
from innerloop.io.files import AnyPath
from innerloop.tasks.class_arrays import ClassArrays, Splits, starts_of
from innerloop.tasks.datasets.glyph_fonts import bitmap, blurred, faces_of
from innerloop.tasks.io import class_splits
from innerloop.tasks.io.cache import cached

RECIPE = 1
"""Incremented whenever the same arguments would give different images, so that an old cache is not used."""

NODES = 5  # the elastic field is drawn on NODES x NODES points and interpolated
CHUNK = 1024
WHO = "glyphs.load"


class _Distortion(NamedTuple):
    """The distortion of each image; lengths are in units of half an image side."""

    affine: np.ndarray  # [images, 2, 2]
    shift: np.ndarray  # [images, 2]
    elastic: np.ndarray  # [images, 2, NODES, NODES]
    weight: np.ndarray  # [images], shifts the threshold between ink and background


def load(*, size: int = 28, drawers: int = 20, cache: AnyPath | None = None, seed: int = 0) -> Splits:
    """Load glyphs as class arrays `[drawers * classes, size, size, 1]` uint8, ink 255 on background 0.

    Training uses Latin, Greek, Canadian, Arabic, Coptic, Ogham and Lisu letters and some digits (663 classes),
    validation Lao, N'Ko and Tifinagh (85), and test Cyrillic, Armenian, Georgian and Hebrew (152). Class names
    are `Script/U+XXXX`. The same arguments give the same images with the same versions of Pillow and NumPy.

    Args:
        size: side of the images.
        drawers: images per class.
        cache: folder in which to keep the generated arrays (None: `arrays/` in the cache folder).
        seed: seed of the distortions and the choice of faces.

    Raises:
        InnerloopError: if `size` or `drawers` is out of range, or fonts are missing from matplotlib.
    """
    if not 8 <= size <= 256 or not 1 <= drawers <= 1000:
        got = f"size {size}, drawers {drawers}"
        raise InnerloopError(WHO, "size must be between 8 and 256 and drawers between 1 and 1000", got=got)
    name = f"glyphs-v{RECIPE}-{size}-{drawers}-{seed}"
    source = f"glyphs of matplotlib's fonts, recipe {RECIPE}, 900 classes"
    return class_splits.apply(cached(name, source, lambda: _build(size, drawers, seed), cache), "glyphs")


def _build(size: int, drawers: int, seed: int) -> ClassArrays:
    names = [name for split in class_splits.SPLITS for name in class_splits.names("glyphs", split)]
    codes = [int(name.split("U+")[1], 16) for name in names]
    rng = np.random.default_rng(seed)
    bases, which = _bases(codes, 2 * size, drawers, rng)
    examples = np.empty((len(which), size, size, 1), np.uint8)
    for start in range(0, len(which), CHUNK):
        part = which[start : start + CHUNK]
        examples[start : start + CHUNK, :, :, 0] = _drawn(bases[part], size, _draw_distortion(len(part), rng))
    counts = np.full(len(names), drawers, np.int32)
    return ClassArrays(examples, starts_of(counts), counts, tuple(names))


def _bases(
    codes: list[int], side: int, drawers: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """All bitmaps `[bitmaps, side, side]`, and the index of each image's bitmap: `[classes * drawers]`.

    The faces of a character are used in random order, and all of them before any is repeated.
    """
    bases: list[np.ndarray] = []
    which: list[np.ndarray] = []
    for code, faces in zip(codes, faces_of(codes), strict=True):
        rounds = -(-drawers // len(faces))
        order = np.concatenate([rng.permutation(len(faces)) for _ in range(rounds)])
        which.append(len(bases) + order[:drawers])
        bases += [bitmap(code, face, side) for face in faces]
    return blurred(np.stack(bases)), np.concatenate(which)


def _draw_distortion(pictures: int, rng: np.random.Generator) -> _Distortion:
    """Draw rotations to 14 degrees, shears to 0.25, scales 0.75 to 1.02, shifts to 0.08 and bends of about 0.06."""
    angle = np.deg2rad(rng.uniform(-14, 14, pictures))
    shear = rng.uniform(-0.25, 0.25, pictures)
    scale = rng.uniform(0.75, 1.02, (pictures, 2))
    turn = np.stack([np.cos(angle), -np.sin(angle), np.sin(angle), np.cos(angle)], -1).reshape(-1, 2, 2)
    lean = np.zeros((pictures, 2, 2))
    lean[:, 0, 0] = lean[:, 1, 1] = 1
    lean[:, 1, 0] = shear  # x moves with y
    return _Distortion(
        affine=turn @ lean / scale[:, None, :],
        shift=rng.uniform(-0.08, 0.08, (pictures, 2)),
        elastic=rng.normal(0, 0.06, (pictures, 2, NODES, NODES)),
        weight=rng.uniform(-0.12, 0.12, pictures),
    )


def _drawn(bases: np.ndarray, size: int, how: _Distortion) -> np.ndarray:
    """Distort bitmaps `[images, side, side]` into uint8 images `[images, size, size]`."""
    line = (2 * np.arange(size) + 1) / size - 1
    grid = np.stack(np.meshgrid(line, line, indexing="ij")).reshape(2, -1)  # y, x of every pixel in -1..1
    bend = _interpolation(size)
    elastic = (bend @ how.elastic @ bend.T).reshape(len(bases), 2, -1)
    points = how.affine @ grid + how.shift[:, :, None] + elastic
    ink = _bilinear(bases, (points + 1) * (bases.shape[-1] / 2) - 0.5)
    sharp = np.clip((ink - 0.5 + how.weight[:, None]) * 1.8 + 0.5, 0, 1)
    return np.rint(255 * sharp).astype(np.uint8).reshape(-1, size, size)


def _interpolation(size: int) -> np.ndarray:
    """`[size, NODES]`: smooth (cosine) interpolation from nodes to pixels."""
    at = np.linspace(0, NODES - 1, size)
    distance = np.clip(np.abs(at[:, None] - np.arange(NODES)), 0, 1)
    return (1 + np.cos(np.pi * distance)) / 2


def _bilinear(bases: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Values at `points [images, 2, n]` (y, x in pixels), with the border extended outwards: `[images, n]`."""
    side = bases.shape[-1]
    points = np.clip(points, 0, side - 1.001).astype(np.float32)
    low = points.astype(np.int32)
    (fy, fx), (y, x) = np.moveaxis(points - low, 1, 0), np.moveaxis(low, 1, 0)
    flat = bases.reshape(-1)
    at = np.arange(len(bases), dtype=np.int32)[:, None] * (side * side) + y * side + x
    above = flat[at] * (1 - fx) + flat[at + 1] * fx
    below = flat[at + side] * (1 - fx) + flat[at + side + 1] * fx
    return above * (1 - fy) + below * fy
