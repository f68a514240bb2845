"""The computation behind `innerloop adapt` and `export` for tables: fit a new group's rows with y, predict the rest."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np

from innerloop.cli.user_fit import Start
from innerloop.errors import InnerloopError
from innerloop.io.text import counted
from innerloop.io.untrusted import JsonObject
from innerloop.tasks.io import table_files
from innerloop.tasks.tables.columns import column_of
from innerloop.tasks.tables.preparation import Category, Preparation
from innerloop.training.experiments.table import load_table, preparation_of
from innerloop.training.trained import with_data


class Rows(NamedTuple):
    """The rows of a new group, and how the run prepares rows.

    Attributes:
        preparation: scales and categories of the training groups.
        frame: the columns of x and y.
        asked: which rows have no y, `[rows]` bool.
    """

    preparation: Preparation
    frame: table_files.Columns
    asked: np.ndarray

    def chosen(self, rows: np.ndarray) -> table_files.Columns:
        """The rows selected by a mask."""
        return {name: values[rows] for name, values in self.frame.items()}


def fit_rows(start: Start, path: Path, *, require_queries: bool) -> Rows:
    """Fit to the rows of a new group that have y.

    Args:
        start: the initialisation; its learner is fitted.
        path: the new group, a CSV or Parquet file with the columns of x and y.
        require_queries: whether rows without y are required.

    Raises:
        InnerloopError: if the file is not such a table, or lacks rows to learn from or to predict.
    """
    preparation = _preparation(start)
    kinds = (*preparation.x, *preparation.y)
    text = {kind.name for kind in kinds if isinstance(kind, Category)}
    frame = table_files.read(path, {kind.name for kind in kinds}, text=text)
    rows = Rows(preparation, frame, _asked(frame, preparation, path, require_queries=require_queries))
    _check_inputs(rows, path, used=np.ones_like(rows.asked) if require_queries else ~rows.asked)
    known = rows.chosen(~rows.asked)
    with of_file(path):
        start.learner.fit(preparation.inputs(known), preparation.targets(known))
    return rows


def predicted_rows(start: Start, path: Path) -> list[JsonObject]:
    """Predictions for the rows of a new group whose y is empty, in the units of the table.

    Args:
        start: the initialisation; its learner is fitted.
        path: as in `fit_rows`.

    Raises:
        InnerloopError: as `fit_rows`.
    """
    rows = fit_rows(start, path, require_queries=True)
    preparation, new = rows.preparation, rows.chosen(rows.asked)
    with of_file(path):
        found = preparation.restore(start.learner.predict(preparation.inputs(new)))
    shown = [kind.name for kind in preparation.x]
    outputs = {kind.name: found[:, i] for i, kind in enumerate(preparation.y)}
    return [
        {"row": int(row) + 1, **{name: _plain(new[name][i]) for name in shown}}
        | {name: float(values[i]) for name, values in outputs.items()}
        for i, row in enumerate(np.flatnonzero(rows.asked))
    ]


@contextmanager
def of_file(path: Path) -> Iterator[None]:
    """Name the file in errors about its rows."""
    try:
        yield
    except InnerloopError as error:
        raise error if error.who == str(path) else InnerloopError(str(path), str(error)) from None


def _preparation(start: Start) -> Preparation:
    """How the run prepared its rows: read from its folder, or recomputed from its table."""
    own = preparation_of(start.source)
    return own or load_table(with_data(start.config, start.data_folder)).preparation


def _asked(
    frame: table_files.Columns, preparation: Preparation, path: Path, *, require_queries: bool
) -> np.ndarray:
    """Which rows to predict: those without y, `[rows]` bool."""
    missing = [column_of(frame, kind.name, str(path)).missing for kind in preparation.y]
    asked, known = np.any(missing, axis=0), ~np.any(missing, axis=0)
    if known.any() and (asked.any() or not require_queries):
        return asked
    names = " and ".join(kind.name for kind in preparation.y)
    wrong = f"needs rows with {names} to learn from" + (
        ", and rows without to predict" if require_queries else ""
    )
    got = f"{counted(int(known.sum()), 'row')} with and {counted(int(asked.sum()), 'row')} without"
    raise InnerloopError(str(path), wrong, got=got)


def _check_inputs(rows: Rows, path: Path, used: np.ndarray) -> None:
    """Raise InnerloopError if a used row lacks an input; rows are numbered from 1, as in the predictions."""
    for kind in rows.preparation.x:
        missing = column_of(rows.frame, kind.name, str(path)).missing & used
        if missing.any():
            wrong = f"column {kind.name!r} has no value in row {int(np.argmax(missing)) + 1}"
            raise InnerloopError(str(path), wrong, hint="fill it, or leave the row out")


def _plain(value: object) -> float | str:
    """A cell as a JSON value."""
    return value if isinstance(value, str) else float(np.asarray(value))
