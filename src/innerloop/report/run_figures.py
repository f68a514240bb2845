"""The figures of a report, in colours that colour-blind people tell apart (Okabe and Ito)."""

from collections.abc import Sequence
from itertools import cycle
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter

from innerloop.io.text import printable
from innerloop.report.measurements import Group, Result

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


def blank(rows: int = 1, height: float = 3.6, width: float = 6.0) -> tuple[Figure, list[Axes]]:
    """An empty figure with `rows` axes over one another, drawn without any display."""
    figure = Figure(figsize=(width, height), layout="constrained")
    axes = figure.subplots(rows, 1, sharex=True, squeeze=False)
    return figure, list(axes[:, 0])


def looks(results: Sequence[Result]) -> list[dict[str, Any]]:
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


def plain(name: str) -> str:
    """A name from outside as a label: dollars begin no formula."""
    return printable(name, 80).replace("$", r"\$")


@matplotlib.rc_context(STYLE)
def adaptation(group: Group) -> Figure:
    """The score after each inner step with its 95 % interval."""
    figure, (axes,) = blank()
    results = group.runs + group.baselines
    accuracy = results[0].score == "accuracy"
    scale = 100.0 if accuracy else 1.0
    for result, look in zip(results, looks(results), strict=True):
        steps, mean = np.array(result.steps), scale * np.array(result.curve["mean"])
        half = scale * np.array(result.curve["ci95"])
        axes.plot(steps, mean, label=plain(result.label), markersize=5, linewidth=1.8, **look)
        axes.fill_between(steps, mean - half, mean + half, color=look["color"], alpha=0.18, linewidth=0)
    spread_steps(axes, results)
    axes.set_xlabel("inner steps")
    axes.set_ylabel(LABELS[results[0].score])
    if accuracy:
        ways = results[0].record["ways"]
        axes.axhline(100 / ways, color=GREY, linewidth=1, linestyle=":")
        axes.annotate(
            "chance", (1, 100 / ways), xycoords=("axes fraction", "data"), ha="right", va="bottom", color=GREY
        )
        axes.set_ylim(0, 102)
    elif results[0].score == "loss":
        axes.set_ylim(bottom=0)
    legend(axes, len(results))
    return figure


def spread_steps(axes: Axes, results: Sequence[Result]) -> None:
    """Whole step numbers; where some runs take many steps, the first ones get most of the room."""
    longest = max(result.record["inner_steps"] for result in results)
    if longest > 12:
        axes.set_xscale("symlog", linthresh=5, linscale=1.5)
        ticks = [t for t in (0, 1, 2, 3, 5, 10, 20, 50, 100, 200, 500) if t <= longest]
    else:
        ticks = list(range(0, longest + 1))
    axes.set_xticks(ticks, [str(t) for t in ticks])
    axes.minorticks_off()


@matplotlib.rc_context(STYLE)
def training(group: Group) -> Figure | None:
    """Outer loss and validation score while training; None if no run kept its measures."""
    kept = [run for run in group.runs if run.metrics]
    if not kept:
        return None
    figure, (above, below) = blank(2, 5.4)
    score = f"validation_{kept[0].score}"
    scale = 100.0 if kept[0].score == "accuracy" else 1.0
    for result, look in zip(group.runs, looks(group.runs), strict=True):
        look = {**look, "linewidth": 1.6, "label": plain(result.label)}
        every = max(1, len(result.metrics) // 12)
        above_name = watched(result)
        draw(above, result.metrics, above_name, 1.0, {**look, "markevery": every, "markersize": 4})
        draw(below, result.metrics, score, scale, {**look, "markersize": 5})
    if kept[0].score == "loss":  # an error spans decades, and one task that diverges would flatten the rest
        for axes in filter(has_positive, (above, below)):
            axes.set_yscale("log")
            axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
            axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
            axes.yaxis.set_minor_formatter(NullFormatter())
    above.set_ylabel("training return, adapted" if kept[0].score == "return" else "outer loss")
    below.set_ylabel(VALIDATION[kept[0].score])
    below.set_xlabel("meta-steps")
    below.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    below.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}".replace(",", " "))
    legend(above, len(kept))
    return figure


def has_positive(axes: Axes) -> bool:
    """Whether a logarithm shows any of what is drawn; where all diverged there is nothing."""
    drawn = (np.asarray(line.get_ydata(), float) for line in axes.lines)
    return any((np.isfinite(values) & (values > 0)).any() for values in drawn)


def watched(result: Result) -> str:
    """The measure of training that is worth a curve: in reinforcement learning the return after the last update."""
    names = [name for name in result.metrics[0] if name.startswith("return_after_")] if result.metrics else []
    return max(names, default="outer_loss")


def draw(axes: Axes, metrics: list[dict[str, Any]], name: str, scale: float, look: dict[str, Any]) -> None:
    """One series of a run's measures."""
    points = [(record["step"], scale * record[name]) for record in metrics if name in record]
    if points:
        axes.plot(*zip(*points, strict=True), **look)


def legend(axes: Axes, entries: int) -> None:
    """Above the axes, where it hides nothing."""
    axes.legend(
        loc="lower left", bbox_to_anchor=(0, 1), ncols=min(entries, 3), borderaxespad=0.2, handlelength=1.8
    )


@matplotlib.rc_context(STYLE)
def wave(x: np.ndarray, truth: np.ndarray, support: Any, answers: dict[int, np.ndarray]) -> Figure:
    """One sinusoid: the wave, the support points, and the prediction after some inner steps."""
    figure, (axes,) = blank(height=3.1, width=4.2)
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
def walks(goals: np.ndarray, positions: list[np.ndarray], masks: list[np.ndarray]) -> Figure:
    """Paths on the plane: a row for each goal `[goals, 2]`, a column for the policy after each update.

    `positions` are `[goals, trajectories, steps, 2]` for each policy, `masks` the same without the last axis.
    """
    rows, columns = len(goals), len(positions)
    figure = Figure(figsize=(2.2 * columns + 0.4, 2.2 * rows + 0.4), layout="constrained")
    grid = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)
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
