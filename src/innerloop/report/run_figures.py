"""The figures of a report, in the colour-blind-safe palette of Okabe and Ito (2008)."""

from collections.abc import Sequence
from itertools import cycle
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, LogLocator, MaxNLocator, NullFormatter

from innerloop.analysis.records import Record
from innerloop.io.text import grouped, printable
from innerloop.report.comparison import Result
from innerloop.report.measurements import Group

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
GREY = "#767676"
LABELS = {
    "accuracy": "accuracy on queries, %",
    "loss": "squared error on queries",
    "return": "undiscounted return",
}
VALIDATION = {
    "accuracy": "validation accuracy, %",
    "loss": "validation squared error",
    "return": "validation return",
}
# A `matplotlibrc` in the folder where the command is called may ask for LaTeX, which is a program.
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
}


def panels(
    rows: int, columns: int, height: float, width: float = 6.0, *, sharex: bool = False, sharey: bool = False
) -> tuple[Figure, Any]:
    """An empty figure of a size in inches with a grid of axes `[rows][columns]`; it needs no display."""
    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.subplots(rows, columns, squeeze=False, sharex=sharex, sharey=sharey)


def thousands(value: float, _: int | float) -> str:
    """A tick label with its thousands apart."""
    return grouped(round(value))


def _styles(results: Sequence[Result]) -> list[Record]:
    """Colour and marker of every result; baselines are grey and dashed."""
    own = cycle(zip(COLOURS, MARKERS, strict=True))
    found = []
    for result in results:
        if result.baseline:
            found.append({"color": GREY, "marker": ".", "linestyle": "--"})
        else:
            colour, marker = next(own)
            found.append({"color": colour, "marker": marker})
    return found


def _label(name: str) -> str:
    """Text as a label, where dollar signs must not start a formula."""
    return printable(name, 80).replace("$", r"\$")


@matplotlib.rc_context(STYLE)
def adaptation(group: Group) -> Figure:
    """The score after each inner step with its 95 % interval, or its standard deviation over seeds."""
    figure, ((axes,),) = panels(1, 1, 3.6)
    results = group.runs + group.baselines
    accuracy = results[0].score == "accuracy"
    scale = 100.0 if accuracy else 1.0
    for result, look in zip(results, _styles(results), strict=True):
        steps, mean = np.array(result.measurement.steps), scale * np.array(result.measurement.curve.mean)
        half = scale * np.array(result.measurement.curve.ci95)
        axes.plot(steps, mean, label=_label(result.label), markersize=5, linewidth=1.8, **look)
        axes.fill_between(steps, mean - half, mean + half, color=look["color"], alpha=0.18, linewidth=0)
    _spread_steps(axes, results)
    axes.set_xlabel("inner steps")
    axes.set_ylabel(LABELS[results[0].score])
    if accuracy:
        ways = results[0].trained.config.data.ways
        axes.axhline(100 / ways, color=GREY, linewidth=1, linestyle=":")
        axes.annotate(
            "chance", (1, 100 / ways), xycoords=("axes fraction", "data"), ha="right", va="bottom", color=GREY
        )
        axes.set_ylim(0, 102)
    elif results[0].score == "loss":
        axes.set_ylim(bottom=0)
    legend(axes, len(results))
    return figure


def _spread_steps(axes: Axes, results: Sequence[Result]) -> None:
    """Ticks at whole steps; if some runs take many steps, the first ones get most of the room."""
    longest = max(result.measurement.inner_steps for result in results)
    if longest > 12:
        axes.set_xscale("symlog", linthresh=5, linscale=1.5)
        ticks = [t for t in (0, 1, 2, 3, 5, 10, 20, 50, 100, 200, 500) if t <= longest]
    else:
        ticks = list(range(0, longest + 1))
    axes.set_xticks(ticks, [str(t) for t in ticks])
    axes.minorticks_off()


@matplotlib.rc_context(STYLE)
def training(group: Group) -> Figure | None:
    """Outer loss and validation score during training; None if no run has metrics."""
    kept = [run for run in group.members if run.metrics]
    if not kept:
        return None
    score = f"validation_{kept[0].score}"
    validated = any(score in record for run in kept for record in run.metrics)
    figure, grid = panels(1 + validated, 1, 5.4 if validated else 3.1, sharex=True)
    panes = [axes for (axes,) in grid]
    scale = 100.0 if kept[0].score == "accuracy" else 1.0
    for result, look in zip(group.runs, _styles(group.runs), strict=True):
        for number, run in enumerate(result.members):
            look = {**look, "linewidth": 1.6, "label": "_" if number else _label(result.label)}
            every = max(1, len(run.metrics) // 12)
            drawn = {**look, "markevery": every, "markersize": 4}
            _draw(panes[0], run.metrics, _training_metric(run), 1.0, drawn)
            _draw(panes[-1], run.metrics, score, scale, {**look, "markersize": 5})
    if kept[0].score == "loss":  # an error spans decades
        for axes in filter(_has_positive, panes):
            axes.set_yscale("log")
            axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
            axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
            axes.yaxis.set_minor_formatter(NullFormatter())
    panes[-1].set_ylabel(VALIDATION[kept[0].score])
    panes[0].set_ylabel("training return, adapted" if kept[0].score == "return" else "outer loss")
    _count_steps(panes[-1], {record["step"] for run in kept for record in run.metrics})
    legend(panes[0], len(group.runs))
    return figure


def _count_steps(axes: Axes, steps: set[int]) -> None:
    """Whole numbers of meta-steps below the axes; one alone has one tick."""
    axes.set_xlabel("meta-steps")
    axes.xaxis.set_major_locator(
        MaxNLocator(6, integer=True) if len(steps) > 1 else FixedLocator([float(step) for step in steps])
    )
    axes.xaxis.set_major_formatter(thousands)


def _has_positive(axes: Axes) -> bool:
    """Whether a logarithmic axis would show anything; if all runs diverged it would not."""
    drawn = (np.asarray(line.get_ydata(), float) for line in axes.lines)
    return any((np.isfinite(values) & (values > 0)).any() for values in drawn)


def _training_metric(result: Result) -> str:
    """The metric to plot: the outer loss, or in reinforcement learning the return after the last update."""
    names = [name for name in result.metrics[0] if name.startswith("return_after_")] if result.metrics else []
    return max(names, default="outer_loss")


def _draw(axes: Axes, metrics: list[Record], name: str, scale: float, look: Record) -> None:
    """One metric of a run."""
    points = [(record["step"], scale * record[name]) for record in metrics if name in record]
    if points:
        axes.plot(*zip(*points, strict=True), **look)


def legend(axes: Axes, entries: int) -> None:
    """Put the legend above the axes."""
    axes.legend(
        loc="lower left", bbox_to_anchor=(0, 1), ncols=min(entries, 3), borderaxespad=0.2, handlelength=1.8
    )


@matplotlib.rc_context(STYLE)
def wave(
    x: np.ndarray, truth: np.ndarray, support: tuple[np.ndarray, np.ndarray], answers: dict[int, np.ndarray]
) -> Figure:
    """One sinusoid: the wave, the support points, and the prediction after some inner steps."""
    figure, ((axes,),) = panels(1, 1, 3.1, 4.2)
    shades = ("#a6a6a6", "#56B4E9", "#0072B2")
    axes.plot(x, truth, color="black", linewidth=1.2, linestyle=":", label="true wave")
    for colour, (step, y) in zip(shades[-len(answers) :], answers.items(), strict=True):
        axes.plot(x, y, color=colour, linewidth=2, label=f"after {step} step{'s' if step != 1 else ''}")
    axes.plot(*support, "o", color="#D55E00", markersize=6, label="support points", zorder=3)
    axes.set_xlabel("x")
    axes.set_ylabel("y")
    axes.legend(
        loc="lower left", bbox_to_anchor=(-0.12, 1), ncols=2, fontsize=9, handlelength=1.5, columnspacing=1
    )
    return figure


@matplotlib.rc_context(STYLE)
def fit(truth: np.ndarray, answers: dict[int, np.ndarray], title: str, name: str) -> Figure:
    """One group of a table: what was predicted after some inner steps over what is true, both of column `name`."""
    figure, ((axes,),) = panels(1, 1, 3.1, 4.2)
    shades = ("#a6a6a6", "#56B4E9", "#0072B2")
    for colour, (step, y) in zip(shades[-len(answers) :], answers.items(), strict=True):
        label = f"after {step} step{'s' if step != 1 else ''}"
        axes.plot(truth, y, ".", color=colour, markersize=5, label=label)
    ends = (float(truth.min()), float(truth.max()))
    axes.plot(ends, ends, color="black", linewidth=1, linestyle=":")
    axes.set_title(title, fontsize=11, loc="right")
    axes.set_xlabel(f"{name}, true")
    axes.set_ylabel(f"{name}, predicted")
    axes.legend(fontsize=9, handlelength=1)
    return figure


@matplotlib.rc_context(STYLE)
def walks(goals: np.ndarray, positions: list[np.ndarray], masks: list[np.ndarray]) -> Figure:
    """Paths in the plane: a row per goal, a column for the policy after each update.

    Args:
        goals: `[goals, 2]`.
        positions: `[goals, trajectories, steps, 2]` for each policy.
        masks: 1 for every step taken, `[goals, trajectories, steps]` for each policy.
    """
    rows, columns = len(goals), len(positions)
    figure, grid = panels(rows, columns, 2.2 * rows + 0.4, 2.2 * columns + 0.4, sharex=True, sharey=True)
    reach = float(max(0.75, min(2.0, np.percentile(np.abs(positions[-1]), 99) + 0.1)))
    for i, goal in enumerate(goals):
        for j, (walked, mask) in enumerate(zip(positions, masks, strict=True)):
            axes: Axes = grid[i, j]
            for path, alive in zip(walked[i], mask[i], strict=True):
                seen = path[alive > 0]
                axes.plot(*seen.T, color=COLOURS[0], linewidth=0.9, alpha=0.45)
                axes.plot(*seen[-1], ".", color=COLOURS[0], markersize=3, alpha=0.7)
            axes.plot(0, 0, "o", color="black", markersize=4)
            axes.plot(*goal, "*", color=COLOURS[1], markersize=13, markeredgecolor="white", zorder=4)
            axes.set_xlim(-reach, reach)
            axes.set_ylim(-reach, reach)
            axes.set_aspect("equal")
            if i == 0:
                axes.set_title(f"after {j} update{'s' if j != 1 else ''}" if j else "before", fontsize=11)
    return figure
