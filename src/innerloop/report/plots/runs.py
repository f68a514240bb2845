"""Plots of runs: scores over inner steps, and what training logged."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from itertools import cycle
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, LogLocator, MaxNLocator, NullFormatter

from innerloop.errors import InnerloopError
from innerloop.io.untrusted import JsonObject
from innerloop.report.plots import style
from innerloop.report.plots.style import COLOURS, GREY, LABELS, MARKERS, Grid, Panels, scale
from innerloop.training.measurement import Measurement, ScoreMeasurement

ADAPTATION = Grid()
VALIDATION = {
    "accuracy": "validation accuracy, %",
    "loss": "validation squared error",
    "return": "validation return",
}


class Curve(NamedTuple):
    """A measured initialisation: its label, its measurement, and whether it is a baseline."""

    label: str
    measurement: Measurement
    baseline: bool = False


class Training(NamedTuple):
    """What one or more trainings with the same label logged: the metrics of each."""

    label: str
    metrics: Sequence[Sequence[JsonObject]]


def styles_of(baselines: Iterable[bool]) -> list[dict[str, Any]]:
    """The colour and marker of every result; baselines are grey and dashed."""
    own = cycle(zip(COLOURS, MARKERS, strict=True))
    grey = {"color": GREY, "marker": ".", "linestyle": "--"}
    return [
        grey if baseline else dict(zip(("color", "marker"), next(own), strict=True)) for baseline in baselines
    ]


def adaptation(
    measurements: Mapping[str, Measurement], ax: Axes | None = None, *, baselines: Collection[str] = ()
) -> Axes:
    """Plot the score after each inner step with its 95 % interval.

    Args:
        measurements: results of `innerloop.measure` by label, all with the same score.
        ax: the axes to draw on (None: a new figure).
        baselines: labels to draw in grey.

    Returns:
        The axes.
    """
    if not measurements:
        hint = "give `{label: innerloop.measure(run)}`"
        raise InnerloopError("measurements", "must hold at least one", got="none", hint=hint)
    if len(scores := {m.score for m in measurements.values()}) > 1:
        got = " and ".join(sorted(scores))
        raise InnerloopError("measurements", "must have the same score", got=got, hint="plot them separately")
    return adaptation_curves([Curve(name, m, name in baselines) for name, m in measurements.items()], ax)


def adaptation_curves(curves: Sequence[Curve], ax: Axes | None = None) -> Axes:
    """`adaptation` for curves whose labels need not be distinct."""
    ax, score = ADAPTATION.one(ax), curves[0].measurement.score
    for curve, look in zip(curves, styles_of(curve.baseline for curve in curves), strict=True):
        mean, half = (scale(score) * np.array(values) for values in curve.measurement.curve)
        look = look | {"label": style.label(curve.label), "markersize": 5, "linewidth": 1.8}
        style.band(ax, curve.measurement.steps, mean, half, look.pop("color"), **look)
    _spread_steps(ax, max(curve.measurement.inner_steps for curve in curves))
    ax.set_xlabel("inner steps")
    ax.set_ylabel(LABELS[score])
    _limits(ax, score, [curve.measurement for curve in curves])
    style.legend(ax, len(curves))
    return ax


def _limits(ax: Axes, score: str, measurements: Sequence[Measurement]) -> None:
    """Set the range of the score, and show chance accuracy."""
    if score == "accuracy":
        style.chance(
            ax, [m.ways for m in measurements if isinstance(m, ScoreMeasurement) and m.ways], 1.0, "right"
        )
        ax.set_ylim(0, 102)
    elif score == "loss":
        ax.set_ylim(bottom=0)


def _spread_steps(ax: Axes, longest: int) -> None:
    """Set ticks at whole steps; if some runs take many steps, the first steps get most of the space."""
    if longest > 12:
        ax.set_xscale("symlog", linthresh=5, linscale=1.5)
        ticks = [t for t in (0, 1, 2, 3, 5, 10, 20, 50, 100, 200, 500) if t <= longest]
    else:
        ticks = list(range(0, longest + 1))
    ax.set_xticks(ticks, [str(t) for t in ticks])
    ax.minorticks_off()


def training(
    metrics: Mapping[str, Sequence[JsonObject]],
    axes: Panels | Axes | None = None,
    *,
    score: str | None = None,
) -> Panels:
    """Plot the outer loss, or the return, and the validation score during training.

    Args:
        metrics: the lines of `metrics.jsonl`, as `innerloop.fit` and `fit_policy` return them, by label.
        axes: one axes to draw on, or two if there were validations (None: a new figure).
        score: the name of the validation score (None: the first one logged).

    Returns:
        The axes, `[1, 1]` or `[2, 1]`.
    """
    if not metrics:
        hint = "give `{label: innerloop.fit(...).metrics}`"
        raise InnerloopError("metrics", "must hold at least one training", got="none", hint=hint)
    found = [Training(name, [lines]) for name, lines in metrics.items()]
    return training_curves(found, score or _first_score(found), axes)


def _first_score(trainings: Sequence[Training]) -> str:
    """The name of the first validation score; empty if there is none."""
    names = [name for t in trainings for lines in t.metrics for line in lines for name in line]
    known = (name.removeprefix("validation_") for name in names if name.startswith("validation_"))
    return next((name for name in known if name != "diverged"), "")


def training_grid(trainings: Sequence[Training], score: str) -> Grid:
    """A panel for training, and one for validation if there was any."""
    name = f"validation_{score}"
    validated = any(name in line for t in trainings for lines in t.metrics for line in lines)
    return Grid(1 + validated, 1, 5.4 if validated else 3.1, sharex=True)


def training_curves(trainings: Sequence[Training], score: str, axes: Panels | Axes | None = None) -> Panels:
    """`training` for labels that may have several trainings, with a known score."""
    axes = training_grid(trainings, score).all(axes)
    panes = axes[:, 0]
    for one, look in zip(trainings, styles_of(False for _ in trainings), strict=True):
        for number, lines in enumerate(one.metrics):
            look = {**look, "linewidth": 1.6, "label": "_" if number else style.label(one.label)}
            every = max(1, len(lines) // 12)
            _draw(panes[0], lines, training_metric(lines), 1.0, look | {"markevery": every, "markersize": 4})
            _draw(panes[-1], lines, f"validation_{score}", scale(score), look | {"markersize": 5})
    if score == "loss":  # errors span decades
        for ax in filter(_has_positive, panes):
            _logarithmic(ax)
    panes[-1].set_ylabel(VALIDATION.get(score, style.label(f"validation {score}".replace("_", " "))))
    metrics = {training_metric(lines) for t in trainings for lines in t.metrics}
    panes[0].set_ylabel("outer loss" if "outer_loss" in metrics else "training return, adapted")
    _count_steps(panes[-1], {line["step"] for t in trainings for lines in t.metrics for line in lines})
    style.legend(panes[0], len(trainings))
    return axes


def training_figure(trainings: Sequence[Training], score: str) -> Figure:
    """`training_curves` as a figure for a page."""
    return style.draw_figure(training_grid(trainings, score), training_curves, trainings, score)


def _logarithmic(ax: Axes) -> None:
    """Make the y axis logarithmic, with plain numbers."""
    ax.set_yscale("log")
    ax.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    ax.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
    ax.yaxis.set_minor_formatter(NullFormatter())


def _count_steps(ax: Axes, steps: set[int]) -> None:
    """Label the x axis with whole numbers of meta-steps; a single one gets one tick."""
    ax.set_xlabel("meta-steps")
    ax.xaxis.set_major_locator(
        MaxNLocator(6, integer=True) if len(steps) > 1 else FixedLocator([float(step) for step in steps])
    )
    ax.xaxis.set_major_formatter(style.thousands)


def _has_positive(ax: Axes) -> bool:
    """Whether a logarithmic axis would show anything, which it would not if all runs diverged."""
    drawn = (np.asarray(line.get_ydata(), float) for line in ax.lines)
    return any((np.isfinite(values) & (values > 0)).any() for values in drawn)


def training_metric(lines: Sequence[JsonObject]) -> str:
    """The metric to plot: the outer loss, or in reinforcement learning the return after the last update."""
    names = [name for name in lines[0] if name.startswith("return_after_")] if lines else []
    return max(names, key=lambda name: (len(name), name), default="outer_loss")  # 10 comes after 9


def _draw(ax: Axes, lines: Sequence[JsonObject], name: str, by: float, look: dict[str, Any]) -> None:
    """Draw one metric of a run."""
    points = [(line["step"], by * line[name]) for line in lines if name in line]
    if points:
        ax.plot(*zip(*points, strict=True), **look)
