"""A user's own table, in a CSV or Parquet file: every group of rows is a task of regression."""

import os
from collections.abc import Sequence
from typing import Literal

from innerloop.errors import InnerloopError
from innerloop.io.home import expanded
from innerloop.tasks.io import table_files
from innerloop.tasks.tables.columns import names_of
from innerloop.tasks.tables.table import Table, from_frame

WHO = "data.y"


def load(
    file: str | os.PathLike[str],
    *,
    task: str,
    y: Sequence[str],
    x: Sequence[str] = (),
    categories: Sequence[str] = (),
    missing: Literal["drop", "refuse"] = "drop",
) -> Table:
    """Read a table and split it by group.

    Args:
        file: a CSV or Parquet file with a header.
        task: the column that names the group of each row.
        y: the columns to predict, of numbers.
        x: the columns that are given (none: all others).
        categories: columns of numbers that mean categories.
        missing: whether rows with a missing value are left out, or refused.

    Raises:
        InnerloopError: the file cannot be read or is no table, y is no number, and as `tables.from_frame`.
    """
    path = expanded(file, "data.file")
    wanted = {task, *x, *y} if x else None
    frame = table_files.read(path, wanted, text={task, *categories})
    for name in y:
        if name in names_of(frame, WHO) and frame[name].dtype.kind != "f":
            do = "choose a column of numbers; classes are predicted from Python, by tables.from_frame"
            raise InnerloopError(WHO, f"column {name!r} must hold numbers", got="text", do=do)
    return from_frame(frame, task=task, x=x or None, y=y, categories=categories, missing=missing)
