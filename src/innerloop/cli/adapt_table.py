"""The computation of `innerloop adapt` for a table: a new group's rows with y, and those to predict."""

from pathlib import Path

import numpy as np

from innerloop.config.schema import Config
from innerloop.errors import InnerloopError
from innerloop.io.text import counted
from innerloop.io.untrusted import JsonObject, read_text
from innerloop.learner.learner import Learner
from innerloop.tasks.io import table_files
from innerloop.tasks.tables.columns import column_of
from innerloop.tasks.tables.preparation import Category, Preparation
from innerloop.training.storage.run_directory import RunFolder
from innerloop.training.table import NAME, load_table
from innerloop.training.trained import with_data


def predicted_rows(
    learner: Learner, config: Config, source: str, data_folder: str, path: Path
) -> list[JsonObject]:
    """Predictions for the rows of a new group whose y is empty, in the units of the table.

    Args:
        learner: the trained initialisation.
        config: of its run.
        source: the run's folder, or a weights file.
        data_folder: the table that it was trained on (empty: as in training).
        path: the new group, a CSV or Parquet file with the columns of x and y.

    Raises:
        InnerloopError: the file is no such table, or lacks rows to learn from or to predict.
    """
    preparation = _preparation(config, source, data_folder)
    kinds = (*preparation.x, *preparation.y)
    text = {kind.name for kind in kinds if isinstance(kind, Category)}
    frame = table_files.read(path, {kind.name for kind in kinds}, text=text)
    asked = _asked(frame, preparation, path)
    rows = lambda chosen: {name: values[chosen] for name, values in frame.items()}
    try:
        known, new = rows(~asked), rows(asked)
        learner.fit(preparation.inputs(known), preparation.targets(known))
        found = preparation.restore(learner.predict(preparation.inputs(new)))
    except InnerloopError as error:
        raise error if error.who == str(path) else InnerloopError(str(path), str(error)) from None
    shown = [kind.name for kind in preparation.x]
    outputs = {kind.name: found[:, i] for i, kind in enumerate(preparation.y)}
    return [
        {"row": int(row) + 1, **{name: _plain(new[name][i]) for name in shown}}
        | {name: float(values[i]) for name, values in outputs.items()}
        for i, row in enumerate(np.flatnonzero(asked))
    ]


def _preparation(config: Config, source: str, data_folder: str) -> Preparation:
    """How the run prepared its rows: kept in its folder, or learned again from its table."""
    folder = Path(source)
    if folder.is_dir() and not data_folder:
        path = RunFolder(folder).place(NAME)
        if path.is_file():
            return Preparation.from_json(read_text(path, follow=False), str(path))
    return load_table(with_data(config, data_folder)).preparation


def _asked(frame: table_files.Columns, preparation: Preparation, path: Path) -> np.ndarray:
    """Which rows are to be predicted: those without y, `[rows]` bool."""
    missing = [column_of(frame, kind.name, str(path)).missing for kind in preparation.y]
    asked, known = np.any(missing, axis=0), ~np.any(missing, axis=0)
    if asked.any() and known.any():
        return asked
    names = " and ".join(kind.name for kind in preparation.y)
    wrong = f"needs rows with {names} to learn from, and rows without to predict"
    got = f"{counted(int(known.sum()), 'row')} with and {counted(int(asked.sum()), 'row')} without"
    raise InnerloopError(str(path), wrong, got=got)


def _plain(value: object) -> float | str:
    """A cell as JSON has it."""
    return value if isinstance(value, str) else float(np.asarray(value))
