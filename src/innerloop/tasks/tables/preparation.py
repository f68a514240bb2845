"""Preparing a table's columns for models: numbers are standardised, categories are one-hot encoded.

Means, standard deviations and categories come from the training groups alone. They are stored, so that the rows of new
groups are prepared in the same way and predictions can be returned in the units of the table.
"""

import json
import warnings
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np
from jaxtyping import Float
from numpy.typing import ArrayLike

from innerloop.errors import InnerloopError
from innerloop.io.text import counted, listed
from innerloop.io.untrusted import parse_json
from innerloop.tasks.tables.columns import Column, Frame, check_lengths, column_of

WHO = "tables"


@dataclass(frozen=True)
class Number:
    """A numeric column, encoded as (value - mean) / scale."""

    name: str
    mean: float
    scale: float

    @classmethod
    def of(cls, column: Column) -> "Number":
        """Learn the mean and the standard deviation; for a constant column, its value and 1."""
        low, high = float(column.values.min()), float(column.values.max())
        if low == high:  # the mean of equal values is rounded, and so their deviation may be 1e-17
            return cls(column.name, low, 1.0)
        scale = float(np.std(column.values))
        return cls(column.name, float(np.mean(column.values)), scale if scale > 0 else 1.0)

    @property
    def width(self) -> int:
        """Numbers that a model sees of it."""
        return 1

    def encoded(self, column: Column) -> Float[np.ndarray, "rows 1"]:
        """The scaled column."""
        if not column.numeric and not column.missing.all():
            got = repr(column.values[~column.missing][0])
            raise InnerloopError(WHO, f"column {self.name!r} must hold numbers, as in training", got=got)
        return ((column.values.astype(np.float64) - self.mean) / self.scale)[:, None]


@dataclass(frozen=True)
class Category:
    """A categorical column, one-hot encoded; an unseen category is encoded as zeros."""

    name: str
    levels: tuple[str, ...]

    @classmethod
    def of(cls, column: Column) -> "Category":
        """Learn the sorted categories."""
        return cls(column.name, tuple(sorted(set(column.values))))

    @property
    def width(self) -> int:
        """Numbers that a model sees of it."""
        return len(self.levels)

    def codes(self, column: Column) -> np.ndarray:
        """The index of each row's category, `[rows]`; -1 for unseen categories."""
        numbers = {level: i for i, level in enumerate(self.levels)}
        return np.array([numbers.get(value, -1) for value in column.values], int)

    def encoded(self, column: Column) -> Float[np.ndarray, "rows levels"]:
        """The one-hot encoded column. A warning reports unseen categories."""
        found = self.codes(column)
        if unseen := sorted({str(column.values[i]) for i in np.flatnonzero(found < 0)}):
            what = f"{counted(len(unseen), 'value')} of column {self.name!r} not in any training group"
            rows = counted(int((found < 0).sum()), "row")
            warnings.warn(f"innerloop: {what} ({listed(unseen, 5)}), found in {rows}", stacklevel=2)
        return (found[:, None] == np.arange(self.width)).astype(np.float64)


@dataclass(frozen=True)
class Preparation:
    """Prepares rows for a model in the same way as the training rows, and converts predictions back.

    Attributes:
        task: the column that names the group of a row.
        x: the input columns.
        y: the columns to predict: numbers, or a single category.
    """

    task: str
    x: tuple[Number | Category, ...]
    y: tuple[Number | Category, ...]

    @property
    def features(self) -> int:
        """The number of features of each row after encoding."""
        return sum(column.width for column in self.x)

    @property
    def outputs(self) -> int:
        """The number of outputs that a model needs: one for each column of y, or for each class."""
        return sum(column.width for column in self.y)

    @property
    def classes(self) -> tuple[str, ...]:
        """The classes, in the order of their indices; empty for regression."""
        return self.y[0].levels if isinstance(self.y[0], Category) else ()

    def inputs(self, frame: Frame) -> Float[np.ndarray, "rows features"]:
        """The rows of a frame as inputs for a model, float32.

        Raises:
            InnerloopError: if a column of x is absent or of another kind, or a value is missing.
        """
        return _join_columns(self.x, read(frame, self.x))

    def targets(self, frame: Frame) -> np.ndarray:
        """The targets of a frame: scaled values `[rows, outputs]` float32, or class indices `[rows]` int32.

        Raises:
            InnerloopError: if a column of y is absent or of another kind, a value is missing, or a class is unseen.
        """
        columns = read(frame, self.y)
        if not isinstance(self.y[0], Category):
            return _join_columns(self.y, columns)
        codes = self.y[0].codes(columns[0])
        if (codes < 0).any():
            got = repr(columns[0].values[codes < 0][0])
            hint = "leave such rows out; the classes are " + ", ".join(self.classes)
            raise InnerloopError(
                WHO, f"column {self.y[0].name!r} has a class that no training group has", got=got, hint=hint
            )
        return codes.astype(np.int32)

    def restore(self, outputs: ArrayLike) -> np.ndarray:
        """Predictions in the units of the table.

        Args:
            outputs: a model's outputs, `[rows, outputs]`, or `[rows]` for a single output.

        Returns:
            Values of the same shape; for classes, the label of each row's largest output, `[rows]`.
        """
        outputs = np.asarray(outputs, np.float64)
        if self.classes:
            return np.array(self.classes)[outputs.argmax(-1)]
        mean, scale = (np.array([getattr(column, name) for column in self.y]) for name in ("mean", "scale"))
        return outputs * scale + mean

    def to_json(self) -> str:
        """Serialise to JSON."""
        return json.dumps(asdict(self), indent=1) + "\n"

    @classmethod
    def from_json(cls, text: str, who: str) -> "Preparation":
        """Read the output of `to_json`. Raises InnerloopError, on behalf of `who`, for anything else."""
        about = parse_json(text, who)
        about = about if isinstance(about, dict) else {}
        x, y = ([_column_from(value, who) for value in _list(about.get(name))] for name in ("x", "y"))
        kinds = {type(column) for column in y}
        if not isinstance(about.get("task"), str) or not x or not y or kinds == {Number, Category}:
            raise InnerloopError(who, "does not describe the columns of a table", hint="restore the file")
        return cls(about["task"], tuple(x), tuple(y))


def read(frame: Frame, columns: Sequence[Number | Category]) -> list[Column]:
    """These columns of a frame. Raises InnerloopError if a column is absent or a value is missing."""
    found = [column_of(frame, c.name, WHO, text=isinstance(c, Category)) for c in columns]
    check_lengths(found, WHO)
    for column in found:
        if column.missing.any():
            row = int(np.argmax(column.missing)) + 1
            hint = "fill it, or leave the row out"
            raise InnerloopError(WHO, f"column {column.name!r} has no value in row {row}", hint=hint)
    return found


def _join_columns(
    kinds: Sequence[Number | Category], columns: Sequence[Column]
) -> Float[np.ndarray, "rows width"]:
    """Encoded columns side by side, float32."""
    blocks = [kind.encoded(column) for kind, column in zip(kinds, columns, strict=True)]
    return np.concatenate(blocks, axis=1).astype(np.float32)


def _list(value: object) -> list[object]:
    return value if isinstance(value, list) else []


def _column_from(about: object, who: str) -> Number | Category:
    """A column from its JSON description."""
    about = about if isinstance(about, dict) else {}
    name, levels, mean, scale = (about.get(key) for key in ("name", "levels", "mean", "scale"))
    if (
        isinstance(name, str)
        and isinstance(mean, int | float)
        and isinstance(scale, int | float)
        and scale > 0
    ):
        return Number(name, float(mean), float(scale))
    if isinstance(name, str) and isinstance(levels, list) and levels and {type(x) for x in levels} == {str}:
        return Category(name, tuple(levels))
    raise InnerloopError(who, "does not describe a column", got=str(about)[:80], hint="restore the file")
