"""How the committed class lists of the glyph set were chosen; they are read, not made again, when the set is
loaded.

Candidates are all letters and digits of the scripts below that some DejaVu face carries and that are no
composition of others (no accents, ligatures or presentation forms). They are taken script by script, the
train scripts first, and a candidate is left out when in some face it looks like one that is already in:
Cyrillic A goes because Latin A is there, c because C is. Between parts the measure is stricter. So no shape
stands on both sides of the split or twice in one part.

`python -m innerloop.tasks.datasets.glyph_classes FOLDER` writes the lists.
"""

import sys
import unicodedata
from pathlib import Path

import numpy as np

from innerloop.tasks.datasets.glyph_fonts import bitmap, faces_of

SCRIPTS = {
    "train": ("Latin", "Digit", "Greek", "Canadian", "Arabic", "Coptic", "Ogham", "Lisu"),
    "validation": ("Lao", "Nko", "Tifinagh"),
    "test": ("Cyrillic", "Armenian", "Georgian", "Hebrew"),
}
UPRIGHT = ("DejaVuSans", "DejaVuSansMono", "DejaVuSerif", "DejaVuSerif-Italic")
SIDE = 28
ALIKE, ALIKE_ACROSS = 0.92, 0.90
"""Two characters count as one shape when, in some face, at least this part of the ink of each lies within one
pixel of the other's ink; between two parts of the split less is enough."""


def choose() -> dict[str, list[str]]:
    """Class names `Script/U+XXXX` of each part, no two of them alike."""
    candidates = [
        (part, script, code) for part in SCRIPTS for script in SCRIPTS[part] for code in _codes(script)
    ]
    overlap = _overlaps([code for _, _, code in candidates])
    chosen: list[int] = []
    for i in range(len(candidates)):
        bounds = [ALIKE if candidates[i][0] == candidates[j][0] else ALIKE_ACROSS for j in chosen]
        if not (overlap[i, chosen] >= bounds).any():
            chosen.append(i)
    parts: dict[str, list[str]] = {part: [] for part in SCRIPTS}
    for i in chosen:
        part, script, code = candidates[i]
        parts[part].append(f"{script}/U+{code:04X}")
    return parts


def _overlaps(codes: list[int]) -> np.ndarray:
    """How alike every two characters are, the largest over the faces: `[characters, characters]` in 0..1."""
    largest = np.zeros((len(codes), len(codes)), np.float32)
    faces = faces_of(codes)
    for face in UPRIGHT:
        ink = np.zeros((len(codes), SIDE, SIDE), np.float32)
        for i, code in enumerate(codes):
            if face in faces[i]:
                ink[i] = bitmap(code, face, SIDE) > 0.5
        covered = ink.reshape(len(ink), -1) @ _grown(ink).reshape(len(ink), -1).T
        covered /= np.maximum(ink.sum((1, 2)), 1)[:, None]
        largest = np.maximum(largest, np.minimum(covered, covered.T))
    return largest


def _grown(ink: np.ndarray) -> np.ndarray:
    """The ink and the four neighbours of each of its pixels (the margin is empty, so nothing wraps)."""
    steps = ((1, -2), (-1, -2), (1, -1), (-1, -1))
    return np.maximum.reduce([ink, *(np.roll(ink, step, axis) for step, axis in steps)])


def _codes(script: str) -> list[int]:
    return [code for code in range(0x21, 0x10000) if _belongs(chr(code), script) and faces_of([code])[0]]


def _belongs(character: str, script: str) -> bool:
    if unicodedata.category(character) not in ("Lu", "Ll", "Lo", "Nd") or unicodedata.decomposition(
        character
    ):
        return False
    words = unicodedata.name(character, "?").replace("-", " ").split()
    return words[0] == script.upper() and "LIGATURE" not in words


if __name__ == "__main__":
    for part, names in choose().items():
        (Path(sys.argv[1]) / f"glyphs_{part}.txt").write_text("\n".join(names) + "\n", encoding="ascii")
