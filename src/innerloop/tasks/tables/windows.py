"""Windows over time series: each series is a task, and each of its windows an example."""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from innerloop.errors import InnerloopError
from innerloop.io.text import counted
from innerloop.tasks.tables.columns import Frame, check_lengths, column_of
from innerloop.tasks.tables.group_splits import Split
from innerloop.tasks.tables.table import Table, assembled

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
    """Tasks from time series: predict a series from its last values, after adapting to a stretch of it.

    An example holds `length` consecutive values of y, and of each column of x, and the target is the value of y
    `horizon` steps after the last of them. The support set is a run of consecutive windows at a random place of the
    series, and the queries are later: none of their forecasts is made before the last target of the support set is
    known. Windows across a gap in time are left out.

    Args:
        frame: a data frame of pandas or Polars, or a dict of arrays; one row per time of a series.
        task: the column that names the series of each row.
        time: the column of times: numbers, or dates; steps are as long as most are.
        y: the column of numbers to predict.
        length: values in a window.
        horizon: steps from the last value of a window to its target.
        x: further columns of numbers that are given for the times of a window.
        shots: as in `from_frame`, in windows.
        queries: as in `from_frame`, in windows.
        missing: as in `from_frame`.
        split: as in `from_frame`, of series.
        seed: as in `from_frame`.

    Raises:
        InnerloopError: as `from_frame`; a series has two rows of one time, or none is long enough.
    """
    if length < 1 or horizon < 1:
        raise InnerloopError(WHO, "`length` and `horizon` must be 1 or more", got=(length, horizon))
    cut = Windows(task, time, (y, *x), length, horizon)
    made = cut(frame)
    found = assembled(
        made,
        task=task,
        y=cut.target,
        x=None,
        shots=shots,
        queries=queries,
        categories=(),
        missing=missing,
        split=split,
        seed=seed,
        gap=horizon - 1,
        who=WHO,
    )
    return replace(found, rows_of=cut)


@dataclass(frozen=True)
class Windows:
    """Makes the windows of a frame: a dict of columns with one row per window.

    Attributes:
        task: the column of series.
        time: the column of times.
        values: the columns of the values, that of y first.
        length: values in a window.
        horizon: steps to the target.
    """

    task: str
    time: str
    values: tuple[str, ...]
    length: int
    horizon: int

    @property
    def target(self) -> str:
        """The name of the target's column."""
        return f"{self.values[0]} (+{self.horizon})"

    def __call__(self, frame: Frame) -> dict[str, np.ndarray]:
        """The windows, series after series, each in order of time.

        Raises:
            InnerloopError: a column is absent or of another kind, a time is there twice, or no window is complete.
        """
        series = column_of(frame, self.task, WHO, text=True)
        columns = [column_of(frame, name, WHO) for name in self.values]
        check_lengths([series, *columns], WHO)
        for column in columns:
            if not column.numeric:
                raise InnerloopError(WHO, f"column {column.name!r} must hold numbers", got="text")
        times = _times(frame, self.time)
        if not len(times) == len(series.values):
            raise InnerloopError(WHO, "columns must have one length", got=f"{len(times)} times")
        order = np.lexsort((times, series.values.astype(str)))
        return self._cut(order, series.values[order], times[order], [c.values[order] for c in columns])

    def _cut(
        self, order: np.ndarray, series: np.ndarray, times: np.ndarray, columns: list[np.ndarray]
    ) -> dict[str, np.ndarray]:
        """The windows of sorted rows."""
        reach = self.length + self.horizon - 1
        same, steps = series[1:] == series[:-1], np.diff(times)
        if (same & (steps <= 0)).any():
            got = f"two rows of {series[1:][same & (steps <= 0)][0]!r}"
            raise InnerloopError(WHO, f"column {self.time!r} must tell the rows of a series apart", got=got)
        usual = np.median(steps[same]) if same.any() else 0.0
        regular = same & (np.abs(steps - usual) <= 1e-3 * usual)
        if irregular := int((same & ~regular).sum()):
            what = f"{counted(irregular, 'gap')} of another length than {usual:g} in column {self.time!r}"
            warnings.warn(f"innerloop: no window crosses the {what}", stacklevel=4)
        # A window is complete if all the steps from its first row to its target are regular.
        joined = np.concatenate([[0], np.cumsum(regular)])
        starts = np.flatnonzero(joined[reach:] - joined[: len(joined) - reach] == reach)
        if not len(starts):
            wrong = f"no series has {reach + 1} consecutive rows"
            raise InnerloopError(WHO, wrong, do="lower `length` or `horizon`")
        found = {self.task: series[starts]}
        for name, values in zip(self.values, columns, strict=True):
            found |= {f"{name} ({i - self.length + 1})": values[starts + i] for i in range(self.length)}
        return found | {self.target: columns[0][starts + reach]}


def _times(frame: Frame, name: str) -> np.ndarray:
    """A column of times as numbers, `[rows]`; dates in days."""
    if name in frame and np.asarray(frame[name]).dtype.kind == "M":
        dates = np.asarray(frame[name]).astype("datetime64[us]")
        return dates.astype(np.int64) / (24 * 3600 * 10**6)
    column = column_of(frame, name, WHO)
    if not column.numeric or column.missing.any():
        do = "give numbers or dates, none of them missing"
        raise InnerloopError(WHO, f"column {name!r} must hold the times of all rows", do=do)
    return column.values
