"""Colours, sizes and axes of figures; the palette of Okabe and Ito (2008) is safe for colour-blind readers."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from innerloop.errors import InnerloopError
from innerloop.io.text import grouped, printable

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
SHADES = ("#a6a6a6", "#56B4E9", "#0072B2")
"""From early to late inner steps."""
GREY = "#767676"
# Ignore a `matplotlibrc` in the working directory: it could enable LaTeX, which runs an external program.
DEFAULTS = {
    name: value
    for name, value in matplotlib.rcParamsDefault.items()
    if not name.startswith(("backend", "interactive", "toolbar"))
}
STYLE: dict[Any, Any] = DEFAULTS | {
    "font.size": 11,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#e3e3e3",
    "axes.axisbelow": True,
    "axes.edgecolor": "#555555",
    "legend.frameon": False,
    "svg.fonttype": "path",
    "svg.hashsalt": "innerloop",  # makes files reproducible
}
"""The style of report pages. Callers who pass their own axes keep their own style."""

LABELS = {
    "accuracy": "accuracy on queries, %",
    "loss": "squared error on queries",
    "return": "undiscounted return",
}
"""The axis labels of scores."""

Panels = NDArray[np.object_]
"""Several `matplotlib.axes.Axes`, in an array like that of `matplotlib.pyplot.subplots`."""


@dataclass(frozen=True)
class Grid:
    """The panels of a figure, and its size in inches."""

    rows: int = 1
    columns: int = 1
    height: float = 3.6
    width: float = 6.0
    sharex: bool = False
    sharey: bool = False

    def figure(self) -> tuple[Figure, Panels]:
        """A figure for a page with its axes `[rows][columns]`; needs no display."""
        figure = Figure(figsize=(self.width, self.height), layout="constrained")
        return figure, self._panels(figure)

    def one(self, ax: Axes | None) -> Axes:
        """The caller's axes, or those of a new pyplot figure, which notebooks show."""
        return self.all(None)[0, 0] if ax is None else ax

    def all(self, axes: Panels | Axes | None) -> Panels:
        """The caller's axes as `[rows][columns]`, or those of a new pyplot figure.

        Raises:
            InnerloopError: if the caller gave too few or too many.
        """
        if axes is None:
            import matplotlib.pyplot

            made = matplotlib.pyplot.figure(figsize=(self.width, self.height), layout="constrained")
            return self._panels(made)
        given = np.asarray(axes, object)
        if given.size != self.rows * self.columns:
            hint = f"give those of `plt.subplots({self.rows}, {self.columns})`"
            raise InnerloopError("axes", "must be one for each panel", got=given.shape, hint=hint)
        return given.reshape(self.rows, self.columns)

    def _panels(self, figure: Figure) -> Panels:
        return figure.subplots(self.rows, self.columns, sharex=self.sharex, sharey=self.sharey, squeeze=False)


def draw_figure(grid: Grid, draw: Callable[..., object], *arguments: object) -> Figure:
    """A figure for a page, drawn by one of the functions that take axes."""
    with matplotlib.rc_context(STYLE):
        figure, axes = grid.figure()
        draw(*arguments, axes[0, 0] if axes.size == 1 else axes)
    return figure


def ink() -> str:
    """The colour of text, for lines that must stand out from any background."""
    return matplotlib.rcParams["text.color"]


def scale(score: str) -> float:
    """100 for accuracies, which are shown in percent, else 1."""
    return 100.0 if score == "accuracy" else 1.0


def label(name: str) -> str:
    """Text as a label, with dollar signs escaped so that they start no formula."""
    return printable(name, 80).replace("$", r"\$")


def legend(ax: Axes, entries: int) -> None:
    """Put the legend above the axes."""
    ax.legend(
        loc="lower left", bbox_to_anchor=(0, 1), ncols=min(entries, 3), borderaxespad=0.2, handlelength=1.8
    )


def thousands(value: float, _: int | float) -> str:
    """A tick label with its thousands separated."""
    return grouped(round(value))


def chance(ax: Axes, ways: Iterable[int], at: float, ha: str) -> None:
    """Draw a line at chance accuracy for each number of ways, labelled at `at`, a fraction of the width."""
    different = list(dict.fromkeys(ways))
    look = {"xycoords": ("axes fraction", "data"), "va": "bottom", "color": GREY, "fontsize": 9}
    for n in different:
        ax.axhline(100 / n, color=GREY, linewidth=1, linestyle=":")
        name = "chance" if len(different) == 1 else f"chance, {n} ways"
        ax.annotate(name, (at, 100 / n), ha=ha, **look)


def band(ax: Axes, x: object, mean: object, half: object, colour: str, **look: object) -> None:
    """Draw a curve `[points]` with its interval as a band."""
    centre, width = np.asarray(mean, float), np.asarray(half, float)
    ax.plot(np.asarray(x), centre, color=colour, **look)  # pyright: ignore[reportArgumentType]
    ax.fill_between(np.asarray(x), centre - width, centre + width, color=colour, alpha=0.18, linewidth=0)
