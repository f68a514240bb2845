"""The user's own table, in a CSV or Parquet file: every group of rows is a regression task."""

import re
from collections.abc import Mapping, Sequence
from typing import Literal

from innerloop.errors import InnerloopError
from innerloop.io.files import AnyPath, expanded
from innerloop.tasks.io import table_files
from innerloop.tasks.tables.preparation import Category, Preparation
from innerloop.tasks.tables.table import Table, build_table

WHO = "data.y"
ARGUMENT = re.compile("`(task|x|y|categories|missing)`")
"""An argument of `tables.from_frame` in its messages; the setting of the same name gives it."""
SPLIT, SEED = (0.64, 0.16, 0.2), 0
"""How groups are divided: as `tables.from_frame` does."""


def check_columns(file: AnyPath, columns: Mapping[str, Sequence[str]]) -> None:
    """Raise InnerloopError for a column that the table does not have; `columns` are by the setting that names them."""
    known = table_files.names(expanded(file, "data.file"))
    for setting, names in columns.items():
        table_files.check_wanted(names, known, f"data.{setting}")


def load(
    file: AnyPath,
    *,
    task: str,
    y: Sequence[str],
    x: Sequence[str] = (),
    categories: Sequence[str] = (),
    missing: Literal["drop", "refuse"] = "drop",
    preparation: Preparation | None = None,
) -> Table:
    """Read a table and split it by group.

    Args:
        file: a CSV or Parquet file with a header.
        task: the column that names the group of each row.
        y: the numeric columns to predict.
        x: the input columns (empty: all others).
        categories: columns whose numbers stand for categories.
        missing: whether to leave out rows with a missing value, or to raise an error.
        preparation: how a run on such a table prepared its rows, with its columns (None: learned from this table).

    Raises:
        InnerloopError: if the file cannot be read or is not a table, or y is not numeric; and as for
            `tables.from_frame`.
    """
    if preparation is not None:
        x, y = ([column.name for column in columns] for columns in (preparation.x, preparation.y))
        categories = [column.name for column in preparation.x if isinstance(column, Category)]
    check_columns(file, {"task": [task], "x": x, "y": y, "categories": categories})
    path = expanded(file, "data.file")
    wanted = {task, *x, *y} if x else None
    frame = table_files.read(path, wanted, text={task, *categories})
    for name in y:
        if frame[name].dtype.kind != "f":
            hint = "choose a numeric column; to predict classes, use tables.from_frame from Python"
            raise InnerloopError(WHO, f"column {name!r} must hold numbers", got="text", hint=hint)
    try:
        return build_table(
            frame, task, y, x or None, categories, missing, SPLIT, SEED, str(path), preparation
        )
    except InnerloopError as error:
        raise InnerloopError(str(path), ARGUMENT.sub(r"`data.\1`", error.problem)) from None
