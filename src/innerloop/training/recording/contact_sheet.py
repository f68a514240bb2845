"""A contact sheet of the user's images as they were loaded: some examples of some classes of each set."""

from pathlib import Path

import numpy as np
import PIL.Image
from PIL import ImageDraw, ImageFont

from innerloop.io.text import counted, printable
from innerloop.tasks.class_arrays import ClassArrays, Splits
from innerloop.training.storage.run_directory import RunFile, RunFolder

ROWS = {"train": 10, "validation": 4, "test": 4}
"""The number of classes shown of each set."""
EXAMPLES = 10
"""The number of examples shown of each class."""
CELL, GAP, WORDS, LINE = 56, 6, 190, 30
"""In pixels: the side of an example, the gap between two, the width of class names, and the height of a heading."""


def write(run: RunFolder, splits: Splits) -> Path:
    """Write the sheet into the folder of a run; returns its path."""
    with run.replacing(RunFile.PICTURES) as draft:
        draw_sheet(splits).save(draft, "PNG")
    return run.path / RunFile.PICTURES


def draw_sheet(splits: Splits) -> PIL.Image.Image:
    """Draw the sheet: a heading for each set, then a row for each class with its name and number of examples."""
    shown = [_spread(part.classes, ROWS[name]) for name, part in splits._asdict().items()]
    height = GAP + sum(LINE + len(rows) * (CELL + GAP) for rows in shown)
    sheet = PIL.Image.new("RGB", (WORDS + EXAMPLES * (CELL + GAP) + GAP, height), "white")
    pen, top = ImageDraw.Draw(sheet), GAP
    for (name, part), rows in zip(splits._asdict().items(), shown, strict=True):
        title = f"{name}: {counted(part.classes, 'class', 'classes')}, {counted(int(part.counts.sum()), 'picture')}"
        pen.text((GAP, top + GAP), title, "black", _font(15))
        top += LINE
        for index in rows:
            _draw_class(sheet, pen, part, index, top)
            top += CELL + GAP
    return sheet


def _draw_class(
    sheet: PIL.Image.Image, pen: ImageDraw.ImageDraw, part: ClassArrays, index: int, top: int
) -> None:
    """Draw the row of one class."""
    examples = part.rows(index)
    pen.text((GAP, top + 12), printable(part.names[index], 24), "black", _font(12))
    pen.text((GAP, top + 30), counted(len(examples), "picture"), "#666666", _font(11))
    for place, example in enumerate(_spread(len(examples), EXAMPLES)):
        sheet.paste(_cell(examples[example]), (WORDS + place * (CELL + GAP), top))


def _cell(example: np.ndarray) -> PIL.Image.Image:
    """One example, scaled to fit a cell."""
    picture = PIL.Image.fromarray(example[..., 0] if example.shape[-1] == 1 else example)
    smaller = max(example.shape[:2]) < CELL
    how = PIL.Image.Resampling.NEAREST if smaller else PIL.Image.Resampling.LANCZOS
    scale = CELL / max(example.shape[:2])
    sides = (max(1, round(scale * picture.width)), max(1, round(scale * picture.height)))
    cell = PIL.Image.new("RGB", (CELL, CELL), "#dddddd")
    cell.paste(picture.resize(sides, how).convert("RGB"))
    return cell


def _spread(count: int, maximum: int) -> list[int]:
    """At most `maximum` of the indices below `count`, evenly spaced."""
    return sorted({int(i) for i in np.linspace(0, count - 1, min(count, maximum)).round()})


def _font(size: int) -> ImageFont.FreeTypeFont:
    """A font that covers most scripts, bundled with Matplotlib."""
    import matplotlib

    return ImageFont.truetype(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf", size)
