"""Reading columns from CSV and Parquet files. Files may be untrusted: nothing in them is executed.

The columns are a frame for `innerloop.tasks.tables`. CSV is read by Python itself, Parquet by `pyarrow` (the extra
`tables`).
"""

import csv
import io
import math
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from innerloop.errors import InnerloopError
from innerloop.io.text import counted, first_repeated, shown
from innerloop.io.untrusted import read_bytes
from innerloop.io.versions import required

BYTES = 1 << 28
"""Largest size of a file in bytes."""
CELLS = 1 << 26
"""Most values in a table."""
MISSING = frozenset(("", "na", "n/a", "nan", "null", "none"))
"""Cells that stand for a missing value in a CSV file, case-insensitive."""
KINDS = {".csv": "CSV", ".parquet": "Parquet", ".pq": "Parquet"}

Columns = dict[str, np.ndarray]
"""Columns by name, each `[rows]`: float64, or text as objects; a missing value is NaN or None."""


def names(path: Path) -> list[str]:
    """The names of the columns, in order. Raises InnerloopError as `read`."""
    content, kind = _content(path)
    if kind == "Parquet":
        with _parquet_file(content, path) as file:
            return list(file.schema_arrow.names)
    with _csv_errors(path):
        header = next(_lines(content), [])
    _check_names(header, path)
    return header


def read(
    path: Path, wanted: Collection[str] | None = None, *, text: Collection[str] = frozenset()
) -> Columns:
    """Read a table.

    Args:
        path: a file whose name ends in `.csv`, `.parquet` or `.pq`.
        wanted: the columns to read (None: all).
        text: columns to read as text even if all their values are numbers; of a Parquet file, whole numbers.

    Raises:
        InnerloopError: if the file is missing, too large, damaged or of another kind, it lacks a wanted column, or
            `pyarrow` is needed but not installed.
    """
    content, kind = _content(path)
    if kind == "Parquet":
        return _parquet(content, path, wanted, text)
    columns = _csv(content, path)
    check_wanted(wanted, columns, str(path))
    return {n: _column(cells, n in text) for n, cells in columns.items() if wanted is None or n in wanted}


def _content(path: Path) -> tuple[bytes, str]:
    """The content of a table, and its kind by the ending of its name."""
    kind = KINDS.get(path.suffix.lower())
    if kind is None:
        hint = "give a file whose name ends in .csv or .parquet"
        raise InnerloopError(str(path), "is not a table", got=repr(path.suffix), hint=hint)
    return read_bytes(path, BYTES), kind


def _lines(content: bytes) -> Any:
    """A reader of the lines of a CSV file."""
    return csv.reader(io.StringIO(content.decode("utf-8-sig"), newline=""), strict=True)


@contextmanager
def _csv_errors(path: Path) -> Iterator[None]:
    """Turn the errors of a file that is not CSV into InnerloopError."""
    try:
        yield
    except UnicodeDecodeError:
        raise InnerloopError(str(path), "is not a UTF-8 text file", hint="save it as CSV in UTF-8") from None
    except csv.Error as trouble:
        raise InnerloopError(str(path), f"is not a CSV table ({trouble})", hint="save it as CSV") from None


def _csv(content: bytes, path: Path) -> dict[str, tuple[str, ...]]:
    """The cells of a CSV file with a header, by column."""
    with _csv_errors(path):
        lines = _lines(content)
        header = next(lines, [])
        numbered = ((lines.line_num, cells) for cells in lines)
        rows = list(islice(_rows(numbered, header, path), CELLS // max(1, len(header)) + 1))
    _check_names(header, path)
    _check_size(len(rows) * len(header), path)
    columns = zip(*rows, strict=True) if rows else ((),) * len(header)
    return dict(zip(header, columns, strict=True))


def _rows(lines: Iterator[tuple[int, list[str]]], header: list[str], path: Path) -> Iterator[list[str]]:
    """The non-empty lines below the header, from numbered lines. Raises InnerloopError for one of another length."""
    for number, cells in lines:
        if not any(cells):
            continue
        if len(cells) != len(header):
            got = f"{len(cells)} in line {number} of the file"
            hint = "quote cells that contain a comma"
            raise InnerloopError(
                str(path), f"every row must have {counted(len(header), 'cell')}", got=got, hint=hint
            )
        yield cells


def _column(cells: tuple[str, ...], text: bool) -> np.ndarray:
    """A column as numbers if all its values are numbers, otherwise as text, such as codes with underscores."""
    known = [None if cell.strip().lower() in MISSING else cell.strip() for cell in cells]
    if not text and not any("_" in cell for cell in cells):  # Python reads 1_10 as 110
        try:
            return np.array([math.nan if cell is None else float(cell) for cell in known], np.float64)
        except ValueError:
            pass
    found = np.empty(len(known), object)
    found[:] = known
    return found


def _check_names(names: list[str], path: Path) -> None:
    """Raise InnerloopError unless all columns have different names."""
    if not names or not all(name.strip() for name in names):
        raise InnerloopError(str(path), "the first row must name all columns", got=shown(names))
    if (twice := first_repeated(names)) is not None:
        raise InnerloopError(str(path), "columns must have different names", got=f"{shown(twice)} twice")


def check_wanted(wanted: Collection[str] | None, known: Collection[str], who: str) -> None:
    """Raise InnerloopError, on behalf of `who`, for a column that the table does not have."""
    if absent := sorted(set(wanted or ()).difference(known)):
        hint = "choose among: " + ", ".join(known)
        raise InnerloopError(who, "there is no column with this name", got=repr(absent[0]), hint=hint)


def _check_size(cells: int, path: Path) -> None:
    if cells > CELLS:
        raise InnerloopError(
            str(path), f"must have at most {CELLS} values", got=cells, hint="make it smaller"
        )


def _parquet(content: bytes, path: Path, wanted: Collection[str] | None, text: Collection[str]) -> Columns:
    """The columns of a Parquet file. Sizes are checked before reading: a small file may contain a huge table."""
    with _parquet_file(content, path) as file:
        check_wanted(wanted, file.schema_arrow.names, str(path))
        _check_size(file.metadata.num_rows * file.metadata.num_columns, path)
        chosen = [name for name in file.schema_arrow.names if wanted is None or name in wanted]
        table = file.read(chosen, use_threads=False)
        return {name: _of_arrow(table[name], name, path, name in text) for name in table.column_names}


@contextmanager
def _parquet_file(content: bytes, path: Path) -> Iterator[Any]:
    """An open Parquet file whose columns have different names; errors in the block become InnerloopError."""
    parquet = required("pyarrow.parquet", "tables", str(path), ", or save the table as CSV")
    import pyarrow

    try:
        file = parquet.ParquetFile(pyarrow.BufferReader(content))
        _check_names(list(file.schema_arrow.names), path)
        yield file
    except InnerloopError:
        raise
    except (pyarrow.ArrowException, OSError, ValueError, MemoryError, OverflowError) as trouble:
        reason = shown((str(trouble).splitlines() or [type(trouble).__name__])[0])
        raise InnerloopError(str(path), f"is not a Parquet table ({reason})", hint="write it again") from None


def _of_arrow(column: Any, name: str, path: Path, text: bool) -> np.ndarray:
    """An Arrow column of numbers or text. Raises InnerloopError for other types."""
    import pyarrow

    kind = column.type
    if pyarrow.types.is_dictionary(kind):
        column, kind = column.cast(kind.value_type), kind.value_type
    if text and pyarrow.types.is_integer(kind):  # as float64, numbers above 2^53 would merge
        column, kind = column.cast(pyarrow.string()), pyarrow.string()
    if pyarrow.types.is_integer(kind) or pyarrow.types.is_floating(kind) or pyarrow.types.is_boolean(kind):
        return np.array([math.nan if x is None else x for x in column.to_pylist()], np.float64)
    found = np.empty(len(column), object)
    if pyarrow.types.is_string(kind) or pyarrow.types.is_large_string(kind) or pyarrow.types.is_null(kind):
        found[:] = column.to_pylist()
        return found
    hint = "convert it to numbers or text, or leave it out"
    raise InnerloopError(str(path), f"column {name!r} must hold numbers or text", got=str(kind), hint=hint)
