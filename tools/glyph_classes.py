"""The selection of the class lists for the glyph set. Loading the set reads the committed lists.

Candidates are all letters and digits of the scripts below that some DejaVu face contains and that are not
composed of others (no accents, ligatures or presentation forms). They are taken script by script, training
scripts first, and a candidate is skipped if in some face it looks like one that is already chosen: Cyrillic A
is skipped because of Latin A, c because of C. Between parts the criterion is stricter. So no shape occurs in
two parts of the split, or twice in one part.

`python -m tools.glyph_classes FOLDER` writes the lists.
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
"""Two characters count as the same shape if, in some face, at least this fraction of the ink of each lies
within one pixel of the other's ink; between two parts of the split, less is enough."""


def choose() -> dict[str, list[str]]:
    """Class names `Script/U+XXXX` of each part, no two of which look alike."""
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
    """Similarity of every two characters, the maximum over the faces: `[characters, characters]` in 0..1."""
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
    """The ink, grown by the four neighbours of each pixel (the margin is empty, so nothing wraps around)."""
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
