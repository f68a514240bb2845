"""Windows over time series: each series is a task, and each window an example."""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from innerloop.errors import InnerloopError, check_count, check_names
from innerloop.io.text import counted
from innerloop.tasks.tables.columns import Column, Frame, check_lengths, column_of, values_of
from innerloop.tasks.tables.group_splits import Split
from innerloop.tasks.tables.table import Table, build_table

WHO = "tables.windows"


def windows(
    frame: Frame,
    *,
    task: str,
    time: str,
    y: str,
    length: int,
    horizon: int = 1,
    x: Sequence[str] = (),
    shots: int | None = None,
    queries: int | None = None,
    missing: Literal["drop", "refuse"] = "drop",
    split: Split = (0.64, 0.16, 0.2),
    seed: int = 0,
) -> Table:
    """Tasks from time series: predict a series from its last values, after adapting to a section of it.

    The inputs of an example are `length` consecutive values of y and of each column of x; its target is the value of y
    `horizon` steps after the last of them. The support set is a run of consecutive windows at a random position in the
    series, and the queries come later: no query's forecast is made before the last target of the support set is known.
    Windows that span an irregular step in time are left out.

    The table's `inputs` gives the windows of new series, also those whose target is still to come: the last `horizon`
    windows of each series are its forecasts. It sorts the series by name, and the rows of each by time.

    Args:
        frame: a pandas or Polars data frame, or a dict of arrays; one row per series and time.
        task: the column that names the series of each row.
        time: the column of times, numbers or dates; the regular step is the median one.
        y: the numeric column to predict.
        length: number of values in a window.
        horizon: steps from the last value of a window to its target.
        x: further numeric columns whose values in the window are inputs.
        shots: as in `from_frame`, in windows.
        queries: as in `from_frame`, in windows.
        missing: as in `from_frame`.
        split: as in `from_frame`, for series.
        seed: as in `from_frame`.

    Raises:
        InnerloopError: as for `from_frame`; or if a series has two rows for one time, or no series is long enough.
    """
    length, horizon = check_count(WHO, "length", length), check_count(WHO, "horizon", horizon)
    cut = Windows(task, time, (y, *check_names(WHO, "x", x)), length, horizon)
    made = cut(frame)
    draws = {"shots": shots, "queries": queries, "gap": horizon - 1}
    found = build_table(made, task, cut.target, None, (), missing, split, seed, WHO, None, **draws)
    return replace(found, rows_of=cut, inputs_of=replace(cut, horizon=0))


@dataclass(frozen=True)
class Windows:
    """Turns a frame into windows: a dict of columns with one row per window.

    Attributes:
        task: the column that names the series.
        time: the column of times.
        values: the columns of values, with y first.
        length: number of values in a window.
        horizon: steps from the last value to the target (0: the last value itself, for windows without a target).
    """

    task: str
    time: str
    values: tuple[str, ...]
    length: int
    horizon: int

    @property
    def target(self) -> str:
        """The name of the target column."""
        return f"{self.values[0]} (+{self.horizon})"

    def __call__(self, frame: Frame) -> dict[str, np.ndarray]:
        """The windows, series by series, each in chronological order.

        Raises:
            InnerloopError: if a column is absent or of another kind, a time occurs twice in a series, or no window is
                complete.
        """
        series = column_of(frame, self.task, WHO, text=True)
        columns = [column_of(frame, name, WHO) for name in self.values]
        times = _times(frame, self.time)
        check_lengths([series, *columns, times], WHO)
        for column in columns:
            if not column.numeric:
                raise InnerloopError(WHO, f"column {column.name!r} must hold numbers", got="text")
        order = np.lexsort((times.values, series.values.astype(str)))
        return self._cut(series.values[order], times.values[order], [c.values[order] for c in columns])

    def _cut(self, series: np.ndarray, times: np.ndarray, columns: list[np.ndarray]) -> dict[str, np.ndarray]:
        """Cut sorted rows into windows."""
        reach = self.length + self.horizon - 1
        same, steps = series[1:] == series[:-1], np.diff(times)
        if (same & (steps <= 0)).any():
            got = f"two rows of {series[1:][same & (steps <= 0)][0]!r}"
            raise InnerloopError(WHO, f"column {self.time!r} must differ between rows of a series", got=got)
        usual = np.median(steps[same]) if same.any() else 0.0
        regular = same & (np.abs(steps - usual) <= 1e-3 * usual)
        if irregular := int((same & ~regular).sum()):
            what = f"{counted(irregular, 'irregular step')} (usually {usual:g}) in column {self.time!r}"
            warnings.warn(f"innerloop: no window crosses the {what}", stacklevel=4)
        # A window is complete if all steps from its first row to its target are regular.
        joined = np.concatenate([[0], np.cumsum(regular)])
        starts = np.flatnonzero(joined[reach:] - joined[: max(0, len(joined) - reach)] == reach)
        if not len(starts):
            wrong = f"no series has {reach + 1} consecutive rows"
            raise InnerloopError(WHO, wrong, hint="lower `length` or `horizon`")
        found = {self.task: series[starts]}
        for name, values in zip(self.values, columns, strict=True):
            found |= {f"{name} ({i - self.length + 1})": values[starts + i] for i in range(self.length)}
        return found | {self.target: columns[0][starts + reach]}


def _times(frame: Frame, name: str) -> Column:
    """The column of times as numbers; dates are converted to days."""
    dates = values_of(frame, name, WHO)
    if len(dates) and dates.dtype == object and all(isinstance(date, np.datetime64) for date in dates):
        dates = np.array(dates.tolist(), "datetime64[us]")  # from a list
    if dates.dtype.kind == "M":
        days = dates.astype("datetime64[us]").astype(np.int64) / (24 * 3600 * 10**6)
        column = Column(name, days, np.isnat(dates))
    else:
        column = column_of(frame, name, WHO)
    if not column.numeric or column.missing.any():
        hint = "use numbers or dates without missing values"
        raise InnerloopError(WHO, f"column {name!r} must hold the times of all rows", hint=hint)
    return column
