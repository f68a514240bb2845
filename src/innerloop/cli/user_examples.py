"""The user's examples for `innerloop adapt`: pictures in folders, or a CSV file of points."""

import csv
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import Annotated, Literal, NamedTuple

import numpy as np
from tyro.conf import arg

from innerloop.config.schema import Normalization
from innerloop.errors import InnerloopError
from innerloop.io.untrusted import TEXT, read_bytes
from innerloop.tasks.io.class_folders import ENDINGS, check_memory, list_classes
from innerloop.tasks.io.images import open_image, to_array, warn_of_remarks
from innerloop.tasks.io.pixels import Colour, colour

LINES = 1_000_000
"""The maximum number of lines in a CSV file."""

Ink = Literal["dark", "light"]
NormalizationOption = Annotated[
    Normalization | None,
    arg(metavar="{transductive,inductive,support}", help_behavior_hint="(default: inductive)"),
]
InkOption = Annotated[
    Ink | None, arg(metavar="{dark,light}", help_behavior_hint="(default: derived from the pictures)")
]
Command = Literal["adapt", "export"]


PictureShape = tuple[int, int, int]
"""Height, width, channels."""


class UserData(NamedTuple):
    """Where the user's examples are.

    Attributes:
        data: a folder of pictures, or a CSV file of points.
        query: the new pictures (empty: those in `data/query`).
        ink: whether drawings are dark or light (None: derived from the pictures).
        command: the command they were given to, for error messages.
    """

    data: Path
    query: tuple[Path, ...]
    ink: Ink | None
    command: Command = "adapt"


class Points(NamedTuple):
    """The rows of a CSV file: x and y of the examples, and x of the new points, each `[points, 1]`."""

    known_x: np.ndarray
    known_y: np.ndarray
    asked_x: np.ndarray


def support_files(folder: Path, ways: int) -> dict[str, list[Path]]:
    """The labelled pictures by class.

    Args:
        folder: the user's folder, with `support/CLASS/`.
        ways: the maximum number of classes that the model takes.

    Raises:
        InnerloopError: for a wrong layout or a wrong number of classes.
    """
    if not folder.is_dir():
        wrong = (
            "must be a folder, as this model takes pictures" if folder.exists() else "there is no such folder"
        )
        hint = "put labelled pictures in DATA/support/CLASS/ and new ones in DATA/query/"
        raise InnerloopError("adapt", wrong, got=repr(str(folder)), hint=hint)
    support = folder / "support"
    if not support.is_dir():
        hint = "put labelled pictures in support/CLASS/ and new ones in query/"
        raise InnerloopError(str(folder), "holds no folder `support`", hint=hint)
    return class_files(support, ways, "adapt")


def class_files(support: Path, ways: int, who: str) -> dict[str, list[Path]]:
    """The pictures of a folder of class folders, by class. Raises InnerloopError for a wrong number of classes."""
    files = list_classes(support, who)
    if len(files) < 2:
        hint = "add a folder for another class"
        raise InnerloopError(str(support), "must hold at least two classes", got=len(files), hint=hint)
    if len(files) > ways:
        wrong = f"the model has outputs for {ways} classes"
        hint = f"leave some out, or train with --data.ways {len(files)}"
        raise InnerloopError(str(support), wrong, got=len(files), hint=hint)
    return files


def query_files(folder: Path, given: Sequence[Path]) -> list[Path]:
    """The new pictures: those given, else those in `folder/query`.

    Raises:
        InnerloopError: if there are none.
    """
    if given:
        missing = [path for path in given if not path.is_file()]
        if missing:
            raise InnerloopError("--query", "there is no such file", got=repr(str(missing[0])))
        return list(given)
    query = folder / "query"
    found = sorted(p for p in query.iterdir() if p.suffix.lower() in ENDINGS) if query.is_dir() else []
    if not found:
        raise InnerloopError(
            str(query), "contains no images", hint="put new ones there, or give --query FILES"
        )
    return found


def read_pictures(paths: Sequence[Path], shape: PictureShape, background: str = "white") -> np.ndarray:
    """All pictures in the shape of the model's inputs, `[pictures, height, width, channels]` uint8."""
    check_memory(2 * len(paths), shape)
    behind, remarks = colour(background, "data.background"), list[str]()
    pictures = np.stack([_read_picture(path, shape, behind, remarks) for path in paths])
    warn_of_remarks(remarks)
    return pictures


def _read_picture(path: Path, shape: PictureShape, background: Colour, remarks: list[str]) -> np.ndarray:
    """One picture, transparent parts composited on the background."""
    height, width, channels = shape
    image = open_image(path, str(path), remarks)
    if height != width and image.size != (width, height):
        got = f"{image.width} x {image.height}"
        raise InnerloopError(str(path), f"must be {width} x {height} pixels", got=got, hint="resize it")
    return to_array(image, height if height == width else None, channels, background)


def ink_of(pictures: np.ndarray) -> Ink:
    """Whether drawings are dark on light or light on dark, since most of a picture is background."""
    return "dark" if pictures.mean() > 127.5 else "light"


def read_points(path: Path, *, require_queries: bool = True) -> Points:
    """Read `x,y` rows; `require_queries`: whether rows with an empty y are required.

    Raises:
        InnerloopError: for a bad header or number, or if there are no examples or no new points.
    """
    try:
        text = read_bytes(path, TEXT).decode("utf-8-sig")
        lines = list(islice(csv.reader(text.splitlines()), LINES + 1))
    except UnicodeDecodeError:
        raise InnerloopError(
            str(path), "is not a text file", hint="give a CSV file with the header x,y"
        ) from None
    except csv.Error as trouble:
        hint = "give a CSV file with the header x,y"
        raise InnerloopError(str(path), f"is not a CSV table ({trouble})", hint=hint) from None
    if len(lines) > LINES:
        raise InnerloopError(str(path), f"must have {LINES} lines at most")
    if not lines or [cell.strip().lower() for cell in lines[0]] != ["x", "y"]:
        raise InnerloopError(str(path), "must begin with the header x,y", got=",".join((lines or [[]])[0]))
    rows = [_point(path, n, cells) for n, cells in enumerate(lines[1:], 2) if any(c.strip() for c in cells)]
    known, asked = [r for r in rows if r[1] is not None], [x for x, y in rows if y is None]
    if not known or (require_queries and not asked):
        wrong = "needs rows with y to learn from" + (
            ", and rows with an empty y to predict" if require_queries else ""
        )
        raise InnerloopError(str(path), wrong, got=f"{len(known)} and {len(asked)}")
    column = lambda values: np.asarray(values, np.float32)[:, None]
    return Points(column([x for x, _ in known]), column([y for _, y in known]), column(asked))


def _point(path: Path, line: int, cells: Sequence[str]) -> tuple[float, float | None]:
    """One row's x, and y unless it is empty."""
    if len(cells) not in (1, 2):
        raise InnerloopError(f"{path}, line {line}", "must hold x,y", got=",".join(cells))
    x, y = cells[0], cells[1] if len(cells) == 2 else ""
    return _number(path, line, x), _number(path, line, y) if y.strip() else None


def _number(path: Path, line: int, cell: str) -> float:
    try:
        value = float("" if "_" in cell else cell)  # Python reads 1_10 as 110
    except ValueError:
        raise InnerloopError(f"{path}, line {line}", "is not a number", got=repr(cell)) from None
    if not abs(value) <= float(np.finfo(np.float32).max):  # NaN, or infinite as a float32
        raise InnerloopError(f"{path}, line {line}", "must be a finite number", got=repr(cell))
    return value
