"""A grouped table, prepared and split by group."""

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from jaxtyping import Float, Int
from numpy.typing import ArrayLike

from innerloop.engine.types import Batch
from innerloop.errors import InnerloopError, check_choice, check_names
from innerloop.io.text import counted, first_repeated, listed
from innerloop.tasks.tables.columns import Column, Frame, check_lengths, column_of, keys_of
from innerloop.tasks.tables.group_splits import PARTS, Split, split_names
from innerloop.tasks.tables.group_tasks import GroupTasks
from innerloop.tasks.tables.preparation import Category, Number, Preparation

WHO = "tables.from_frame"


def _unchanged(frame: Frame) -> Frame:
    return frame


@dataclass(frozen=True)
class Table:
    """Tasks from a table, and the preparation of its rows.

    Attributes:
        train: the training groups.
        validation: the validation groups.
        test: the test groups.
        preparation: the column names, and the scaling and categories learned on the training groups.
        left_out: number of rows that were left out, by reason.
        rows_of: turns a frame into the rows to prepare (windows for time series, otherwise the frame itself).
        inputs_of: the same for rows whose y is not known yet.
    """

    train: GroupTasks
    validation: GroupTasks
    test: GroupTasks
    preparation: Preparation
    left_out: dict[str, int]
    rows_of: Callable[[Frame], Frame] = _unchanged
    inputs_of: Callable[[Frame], Frame] = _unchanged

    def prepare(self, frame: Frame) -> Batch:
        """Prepare new rows with known y, in the same way as the training rows.

        Args:
            frame: rows with the columns of x and y. The group column is needed only for windows of time series, like
                that of times.

        Returns:
            Inputs `[rows, features]` float32, and targets `[rows, outputs]` float32 or, for classes, `[rows]` int32.

        Raises:
            InnerloopError: if a column is absent or of another kind, or a value is missing.
        """
        rows = self.rows_of(frame)
        return Batch(self.preparation.inputs(rows), self.preparation.targets(rows))

    def inputs(self, frame: Frame) -> Float[np.ndarray, "rows features"]:
        """Prepare new rows without y, or all windows of series, series by series up to its last time.

        Args:
            frame: rows with the columns of x; for windows, those of `prepare`.

        Raises:
            InnerloopError: as `prepare`.
        """
        return self.preparation.inputs(self.inputs_of(frame))

    def restore(self, outputs: ArrayLike) -> np.ndarray:
        """Predictions in the units of the table; see `Preparation.restore`."""
        return self.preparation.restore(outputs)

    def draws(self, shots: int | None, queries: int | None = None) -> "Table":
        """The same table with other numbers of support and query rows per task."""
        parts = {part: getattr(self, part).draws(shots, queries) for part in PARTS}
        return replace(self, **parts)


def from_frame(
    frame: Frame,
    *,
    task: str,
    y: str | Sequence[str],
    x: Sequence[str] | None = None,
    shots: int | None = None,
    queries: int | None = None,
    categories: Sequence[str] = (),
    missing: Literal["drop", "refuse"] = "drop",
    split: Split = (0.64, 0.16, 0.2),
    seed: int = 0,
) -> Table:
    """Tasks from a table: each group of rows is a task, with all its rows, however many there are.

    Numbers are scaled to mean 0 and standard deviation 1 over the rows of the training groups, and text columns are
    one-hot encoded over their values in these groups. A text column as y is a class to predict: use `cross_entropy` and
    a model with `table.preparation.outputs` outputs. Warnings report rows and groups that are left out, and categories
    that no training group has.

    Args:
        frame: a pandas or Polars data frame, or a dict of arrays; one row per example.
        task: the column that names the group of each row.
        y: the column, or columns, to predict.
        x: the input columns (None: all others).
        shots: support rows per task; a group that is too small uses all rows but one (None: half of each group).
        queries: maximum number of query rows per task (None: all rows that are not in the support set).
        categories: columns whose numbers stand for categories.
        missing: whether to leave out rows with a missing value, or to raise an error.
        split: fractions of the groups for training, validation and test, or a dict with the names of the groups in
            each.
        seed: seed for shuffling the groups before they are split.

    Raises:
        InnerloopError: if a column is absent or holds anything but numbers and text, values are missing and `missing`
            is `refuse`, there are too few groups, or an argument is out of range.
    """
    draws = {"shots": shots, "queries": queries}
    return build_table(frame, task, y, x, categories, missing, split, seed, WHO, None, **draws)


def build_table(
    frame: Frame,
    task: str,
    y: str | Sequence[str],
    x: Sequence[str] | None,
    categories: Sequence[str],
    missing: Literal["drop", "refuse"],
    split: Split,
    seed: int,
    who: str,
    preparation: Preparation | None,
    **draws: int | None,
) -> Table:
    """As `from_frame`; `draws` are the settings of `GroupTasks`, `who` is named in messages.

    With a `preparation` of the same columns, nothing is learned from the training groups.
    """
    check_choice(who, "missing", missing, ("drop", "refuse"))
    xs, ys = _names(frame, task, x, y, who)
    columns = _columns(frame, task, [*xs, *ys], set(check_names(who, "categories", categories)), who)
    complete = _complete(columns, missing, who)
    groups = _groups(complete[task], 2 + (draws.get("gap") or 0), who)
    usable = len(complete[task].values)
    lost = {
        "missing values": len(columns[task].values) - usable,
        "groups that are too small": usable - sum(map(len, groups.values())),
    }
    parts = split_names(list(groups), split, seed, who)
    chosen = {part: np.concatenate([groups[name] for name in parts[part]]) for part in PARTS}
    trained = lambda name: _rows(complete[name], chosen["train"])
    learn = lambda names: tuple((Number if c.numeric else Category).of(c) for c in map(trained, names))
    preparation = preparation or Preparation(task, learn(xs), learn(ys))
    _check_y(preparation, who)
    frames = {part: {name: complete[name].values[chosen[part]] for name in (*xs, *ys)} for part in PARTS}
    train, validation, test = (
        GroupTasks(
            preparation.inputs(frames[part]),
            preparation.targets(frames[part]),
            np.array([len(groups[name]) for name in parts[part]]),
            tuple(parts[part]),
            **draws,
        )
        for part in PARTS
    )
    left_out = {reason: count for reason, count in lost.items() if count}
    return Table(train, validation, test, preparation, left_out)


def _names(
    frame: Frame, task: str, x: Sequence[str] | None, y: str | Sequence[str], who: str
) -> tuple[list[str], list[str]]:
    """The columns of x and y. Raises InnerloopError if there are none, or a column has two roles."""
    ys = [y] if isinstance(y, str) else check_names(who, "y", y)
    if isinstance(x, str):
        raise InnerloopError(who, "`x` must be a list of columns", got=repr(x), hint=f"pass x=[{x!r}]")
    if not isinstance(task, str):
        raise InnerloopError(who, "`task` must name a column", got=repr(task))
    others = lambda: [name for name in map(str, keys_of(frame, who)) if name not in (task, *ys)]
    xs = others() if x is None else check_names(who, "x", x)
    for name, found in (("x", xs), ("y", ys)):
        if not found:
            raise InnerloopError(who, f"`{name}` must name at least one column")
    if (twice := first_repeated([task, *xs, *ys])) is not None:
        raise InnerloopError(who, "a column must have one role", got=f"{twice!r} twice among task, x, y")
    return xs, ys


def _columns(frame: Frame, task: str, names: list[str], categories: set[str], who: str) -> dict[str, Column]:
    """The columns that are used, by name."""
    used = [task, *names]
    if unknown := sorted(categories.difference(used)):
        raise InnerloopError(who, "`categories` names a column that is not used", got=repr(unknown[0]))
    columns = {name: column_of(frame, name, who, text=name == task or name in categories) for name in used}
    check_lengths(columns.values(), who)
    return columns


def _complete(columns: dict[str, Column], missing: str, who: str) -> dict[str, Column]:
    """The rows without missing values; other rows are left out with a warning, or raise InnerloopError."""
    gone = np.any([column.missing for column in columns.values()], axis=0)
    if not gone.any():
        return columns
    each = ", ".join(f"{n}: {c.missing.sum()}" for n, c in columns.items() if c.missing.any())
    what = f"{gone.sum()} of {counted(len(gone), 'row')} with missing values"
    if missing == "refuse":
        raise InnerloopError(
            who, "no value may be missing", got=f"{what} ({each})", hint="fill or remove them"
        )
    if gone.all():
        raise InnerloopError(
            who, "every row has a missing value", got=each, hint="leave such columns out of `x`"
        )
    warnings.warn(f"innerloop: {what} are left out ({each})", stacklevel=4)
    return {name: _rows(column, ~gone) for name, column in columns.items()}


def _groups(column: Column, minimum: int, who: str) -> dict[str, Int[np.ndarray, " rows"]]:
    """The rows of each group, in table order; groups too small for a task are left out, with a warning."""
    names, first, inverse = np.unique(column.values, return_index=True, return_inverse=True)
    order, ends = np.argsort(inverse, kind="stable"), np.cumsum(np.bincount(inverse))
    rows = dict(zip(names.tolist(), np.split(order, ends[:-1]), strict=True))
    groups = {name: rows[name] for name in names[np.argsort(first)]}
    small = [name for name, rows in groups.items() if len(rows) < minimum]
    if not small:
        return groups
    if len(small) == len(groups):
        wrong = f"a task needs {minimum} rows, and no group of {column.name!r} has that many"
        raise InnerloopError(who, wrong, hint="choose another column as `task`")
    what = f"{len(small)} of {counted(len(groups), 'group')} with fewer than {minimum} rows"
    warnings.warn(f"innerloop: {what} are left out: {listed(small, 10)}", stacklevel=4)
    return {name: rows for name, rows in groups.items() if len(rows) >= minimum}


def _rows(column: Column, chosen: np.ndarray) -> Column:
    """The chosen rows of a column."""
    return Column(column.name, column.values[chosen], column.missing[chosen])


def _check_y(preparation: Preparation, who: str) -> None:
    """Raise InnerloopError if y mixes a class with other columns, or has only one class."""
    if len(preparation.y) > 1 and any(isinstance(column, Category) for column in preparation.y):
        raise InnerloopError(who, "a class must be the only column of `y`", hint="choose one text column")
    if len(preparation.classes) == 1:
        raise InnerloopError(who, "y must have at least two classes", got=repr(preparation.classes[0]))
