"""Columns of data frames from any library, as NumPy arrays of numbers or text, with their missing values.

A frame is anything that returns a column by its name, `frame["x"]`: a pandas or Polars data frame, an Arrow table, or a
dict of arrays and lists. Names that are not text, as of columns that pandas numbers, are known by their text: 0 is "0".
No data frame library is imported.
"""

import math
from collections.abc import Iterable
from numbers import Integral, Real
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool

from innerloop.errors import InnerloopError
from innerloop.io.text import shown

Frame = Any
"""Anything that returns a column by its name."""


class Column(NamedTuple):
    """One column.

    Attributes:
        name: its name in the frame.
        values: `[rows]` float64, or text as objects; missing values are NaN or None.
        missing: whether each row's value is missing, `[rows]`.
    """

    name: str
    values: np.ndarray
    missing: Bool[np.ndarray, " rows"]

    @property
    def numeric(self) -> bool:
        """Whether it holds numbers."""
        return self.values.dtype.kind == "f"


def keys_of(frame: Frame, who: str) -> list[Any]:
    """What a frame's columns are called in it: pandas numbers columns without names.

    Raises InnerloopError, on behalf of `who`, for anything but a frame.
    """
    names = getattr(frame, "column_names", None)  # for Arrow, where `columns` are arrays
    if names is None:
        names = frame.keys() if isinstance(frame, dict) else getattr(frame, "columns", None)
    if names is None:
        hint = "pass a pandas or Polars data frame, or a dict of arrays"
        raise InnerloopError(
            who, "`frame` must be a table with named columns", got=type(frame).__name__, hint=hint
        )
    return list(names)


def values_of(frame: Frame, name: str, who: str) -> np.ndarray:
    """The values of a column as they are, `[rows]`. Raises InnerloopError if there is no such column."""
    keys = {str(key): key for key in keys_of(frame, who)}
    if not isinstance(name, str) or name not in keys:
        hint = "choose among: " + ", ".join(keys)
        raise InnerloopError(who, "there is no column with this name", got=repr(name), hint=hint)
    values = frame[keys[name]]
    # `np.asarray` would turn a mixed list of numbers and text into text.
    values = np.array(values, object) if isinstance(values, list | tuple) else np.asarray(values)
    if values.ndim != 1:
        raise InnerloopError(who, f"column {name!r} must have one value per row", got=f"shape {values.shape}")
    return values


def column_of(frame: Frame, name: str, who: str, *, text: bool = False) -> Column:
    """A column of numbers or text.

    Args:
        frame: the frame.
        name: the column's name.
        who: the called function, for messages.
        text: whether the values are names (of groups, of categories), even if they are numbers.

    Raises:
        InnerloopError: if there is no such column, or it holds neither numbers nor text.
    """
    values = values_of(frame, name, who)
    if values.dtype.kind in "biuf":
        found = values.astype(np.float64)
        column = Column(name, found, np.isnan(found))
    else:
        column = _column_of_objects(name, values, who)
    _check_finite(column, who)
    return _as_text(column, values) if text and column.numeric else column


def _column_of_objects(name: str, values: np.ndarray, who: str) -> Column:
    """A column of text, or of numbers of which some are missing."""
    if values.dtype.kind not in "OUST":
        hint = "convert dates to numbers, such as days since the first"
        raise InnerloopError(
            who, f"column {name!r} must hold numbers or text", got=f"dtype {values.dtype}", hint=hint
        )
    found = np.empty(len(values), object)
    found[:] = values.tolist()
    missing = np.array([is_missing(value) for value in found], bool)
    rest = found[~missing]
    if len(rest) and all(isinstance(value, Real) for value in rest):
        numbers = np.full(len(found), np.nan)
        numbers[~missing] = [float(value) for value in rest]
        return Column(name, numbers, missing)
    for value in rest:
        if not isinstance(value, str | Real):
            got = f"{shown(value)} ({type(value).__name__})"
            raise InnerloopError(who, f"column {name!r} must hold numbers or text", got=got)
    found[~missing] = [as_name(value) for value in rest]
    found[missing] = None
    return Column(name, found, missing)


def is_missing(value: object) -> bool:
    """Whether a value is missing: None, NaN, or their pandas equivalents."""
    if value is None or type(value).__name__ in ("NAType", "NaTType"):
        return True
    return isinstance(value, Real) and math.isnan(value)


def as_name(value: object) -> str:
    """A value as the name of a group or category; whole numbers are written without decimals."""
    if isinstance(value, Integral):
        return str(int(value))
    if isinstance(value, Real) and float(value).is_integer():
        return str(int(float(value)))
    return str(value)


def _as_text(column: Column, values: np.ndarray) -> Column:
    """The column with numbers turned into names.

    The names are those of the frame's own `values`: as float64, integers above 2^53 would merge.
    """
    names = np.empty(len(values), object)
    pairs = zip(values.tolist(), column.missing, strict=True)
    names[:] = [None if gone else as_name(x) for x, gone in pairs]
    return Column(column.name, names, column.missing)


def _check_finite(column: Column, who: str) -> None:
    if column.numeric and (infinite := int(np.isinf(column.values).sum())):
        hint = "remove those rows, or give them a value"
        raise InnerloopError(
            who, f"column {column.name!r} must be finite", got=f"{infinite} infinite values", hint=hint
        )


def check_lengths(columns: Iterable[Column], who: str) -> None:
    """Raise InnerloopError unless all columns have the same length, above 0."""
    lengths = {column.name: len(column.values) for column in columns}
    if len(set(lengths.values())) > 1:
        raise InnerloopError(who, "columns must have the same length", got=lengths)
    if not any(lengths.values()):
        raise InnerloopError(who, "the table has no rows")
