"""Plots of an analysis: inner steps, the loss landscape, paths, and snapshots along training."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from innerloop.io.untrusted import JsonObject
from innerloop.report.plots import style
from innerloop.report.plots.analysis import found as measured
from innerloop.report.plots.analysis import scored
from innerloop.report.plots.style import COLOURS, GREY, Grid, Panels, band, chance, ink, thousands

STEPS = Grid(2, 2, 5.6, 8.0, sharex=True)
LINE = Grid(height=3.4)
PLANE = Grid(1, 2, 3.7, 8.0, sharey=True)
PATHS = Grid(2, 2, 7.6, 8.0)
ALONG = Grid(1, 2, 3.6, 8.5)


def inner_steps(results: JsonObject, axes: Panels | None = None) -> Panels:
    """Plot the score, the losses, and each layer's gradient and movement after every inner step.

    Args:
        results: a record with the experiment `steps`.
        axes: four axes to draw on (None: a new figure).

    Returns:
        The axes, `[2, 2]`.
    """
    found = scored(results, "steps")
    axes = STEPS.all(axes)
    (score, loss), (gradient, moved) = axes
    _score(score, found, results)
    _curve(loss, found["steps"], found["support_loss"], COLOURS[0], "support")
    if "loss" in found:  # a score of one's own may be an accuracy alone
        _curve(loss, found["steps"], found["loss"], COLOURS[1], "queries")
    loss.set_ylabel("loss")
    loss.legend(fontsize=9)
    for i, (name, layer) in enumerate(found["layers"].items()):
        _curve(gradient, found["steps"], layer["gradient"], COLOURS[i % len(COLOURS)], name)
        _curve(moved, found["steps"], layer["moved"], COLOURS[i % len(COLOURS)], name)
    gradient.set_yscale("log")
    gradient.set_ylabel("norm of the support gradient")
    moved.set_ylabel("distance from θ / norm")
    moved.legend(fontsize=8.5)
    for ax in (gradient, moved):
        ax.set_xlabel("inner steps")
        ax.set_xticks(found["steps"])
    return axes


def _score(ax: Axes, found: JsonObject, results: JsonObject) -> None:
    """Draw the accuracy, or the error of a regression."""
    ax.set_ylabel(style.LABELS[results["metric"]])
    if "accuracy" not in found:
        _curve(ax, found["steps"], found["loss"], COLOURS[0], "")
        return
    _curve(ax, found["steps"], found["accuracy"], COLOURS[0], "", 100.0)
    chance(ax, [results["ways"]], 0.01, "left")
    ax.set_ylim(0, 103)


def _curve(
    ax: Axes, x: Sequence[int | float], curve: JsonObject, colour: str, label: str, by: float = 1.0
) -> None:
    """Draw a curve with its interval."""
    mean, half = (
        by * np.array(curve[name], float) for name in ("mean", "ci95")
    )  # None becomes NaN: no point
    shown = style.label(label) or None
    band(ax, x, mean, half, colour, label=shown, marker="o", markersize=3.5, linewidth=1.7)


def loss_along_step(results: JsonObject, ax: Axes | None = None) -> Axes:
    """Plot the loss along each task's own first inner step.

    Args:
        results: a record with the experiment `landscape`.
        ax: the axes to draw on (None: a new figure).

    Returns:
        The axes.
    """
    found = measured(results, "landscape")["line"]
    ax = LINE.one(ax)
    _curve(ax, found["along"], found["support_loss"], COLOURS[0], "support")
    _curve(ax, found["along"], found["query_loss"], COLOURS[1], "queries")
    for at, name in ((0, "θ"), (1, "one inner step")):
        ax.axvline(at, color=GREY, linewidth=1, linestyle=":")
        look = {"xycoords": ("data", "axes fraction"), "textcoords": "offset points", "fontsize": 9}
        ax.annotate(name, (at, 0.97), (3, 0), color=GREY, va="top", **look)
    ax.set_xlabel("inner steps along the first gradient")
    ax.set_ylabel("loss")
    ax.set_ylim(bottom=0)
    ax.legend(loc="upper right", fontsize=9)
    return ax


def loss_plane(results: JsonObject, axes: Panels | None = None) -> Panels:
    """Plot the losses of two tasks on the plane of their first steps, with their inner-loop paths.

    Args:
        results: a record with the experiment `landscape`.
        axes: two axes to draw on (None: a new figure).

    Returns:
        The axes, `[1, 2]`.
    """
    found = measured(results, "landscape")["plane"]
    axes = PLANE.all(axes)
    losses = [np.log10(np.maximum(np.array(values), 1e-4)) for values in found["losses"]]
    levels = np.linspace(min(x.min() for x in losses), max(x.max() for x in losses), 16)
    levels = levels if levels[-1] > levels[0] else levels[0] + np.linspace(0, 1, 16)
    shown = None
    for i, (ax, values) in enumerate(zip(axes[0], losses, strict=True)):
        shown = ax.contourf(found["grid"], found["grid"], values, levels=levels, cmap="viridis")
        for j, path in enumerate(found["paths"]):
            own = {"color": "white" if i == j else "#d0d0d0", "linewidth": 2 if i == j else 1.2}
            ax.plot(*np.array(path).T, marker="o", markersize=4, linestyle="-" if i == j else "--", **own)
        ax.plot(0, 0, "*", color="#D55E00", markersize=13)
        ax.set_title(f"loss of task {i + 1}", fontsize=11)
        ax.set_xlabel("steps of task 1")
        ax.grid(visible=False)
    axes[0, 0].set_ylabel("steps of task 2")
    bar = axes[0, 0].figure.colorbar(shown, ax=axes[0], ticks=MaxNLocator(5))
    bar.ax.yaxis.set_major_formatter(lambda value, _: f"{10**value:.2g}")
    bar.set_label("query loss, on a log scale")
    return axes


def paths(results: JsonObject, axes: Panels | None = None) -> Panels:
    """Plot inner-loop paths of body and head: with the outer loop, and around θ.

    Args:
        results: a record with the experiment `paths`.
        axes: four axes to draw on (None: a new figure).

    Returns:
        The axes, `[2, 2]`: the columns are body and head.
    """
    found = measured(results, "paths")
    axes = PATHS.all(axes)
    for column, part in enumerate(("body", "head")):
        wide, close = axes[0, column], axes[1, column]
        _outer_path(wide, np.array(found[part]["outer"]))
        _inner_paths(wide, found[part]["wide"], "inner loops")
        _inner_paths(close, found[part]["close"], None)
        unit = "" if found[part]["relative"] else ", absolute lengths"
        wide.set_title(f"{part}: outer and inner loops{unit}", fontsize=11)
        close.set_title(f"{part}: inner loops only{unit}", fontsize=11)
    same_unit = found["body"]["relative"] == found["head"]["relative"]
    for row in axes if same_unit else axes.reshape(-1, 1):
        _same_scale(row)
    axes[0, 0].legend(fontsize=9, loc="lower left")
    for ax in axes[:, 0]:
        ax.set_ylabel("units of the norm of θ's part", fontsize=10)
    return axes


def _outer_path(ax: Axes, outer: np.ndarray) -> None:
    """Draw the path of the outer loop `[snapshots, 2]`, if there are snapshots."""
    if len(outer):
        ax.plot(*outer.T, color=ink(), linewidth=1.6, marker=".", markersize=5, label="outer loop")
        ax.annotate("start", outer[0], (0, 7), textcoords="offset points", ha="center", fontsize=9)


def _inner_paths(ax: Axes, found: Sequence[Sequence[Sequence[float]]], label: str | None) -> None:
    """Draw the paths of several tasks, from θ."""
    for i, path in enumerate(found):
        look = {"color": COLOURS[i % 6], "linewidth": 1.6, "marker": "o", "markersize": 3}
        ax.plot(*np.array(path).T, label=label if i == 0 else None, **look)
    ax.plot(0, 0, "*", color="#D55E00", markersize=12, zorder=4)
    ax.annotate("θ", (0, 0), (4, 6), textcoords="offset points", fontsize=11)
    ax.set_aspect("equal", adjustable="datalim")


def _same_scale(row: Panels) -> None:
    """Give all axes of a row the scale of the widest, so that lengths can be compared."""
    boxes = [ax.dataLim for ax in row]
    half = 0.56 * max(max(box.width, box.height, 1e-9) for box in boxes)
    for ax, box in zip(row, boxes, strict=True):
        ax.set_xlim((box.x0 + box.x1) / 2 - half, (box.x0 + box.x1) / 2 + half)
        ax.set_ylim((box.y0 + box.y1) / 2 - half, (box.y0 + box.y1) / 2 + half)
        ax.set_aspect("equal", adjustable="box")


def along_training(results: JsonObject, axes: Panels | None = None) -> Panels:
    """Plot freezing and similarity at the snapshots along training.

    Args:
        results: a record with the experiment `early`.
        axes: two axes to draw on (None: a new figure).

    Returns:
        The axes, `[1, 2]`.
    """
    lines = measured(results, "early", "metric", "layers")
    axes = ALONG.all(axes)
    (left, right), at, metric = axes[0], [x["meta_step"] for x in lines], results["metric"]
    for i, name in enumerate(("nothing frozen", "body frozen")):
        mean = [x["freeze"][i][metric] for x in lines]
        half = [x["freeze"][i]["ci95"] for x in lines]
        _curve(left, at, {"mean": mean, "ci95": half}, COLOURS[i], name, style.scale(metric))
    left.set_ylabel(style.LABELS[metric])
    left.set_ylim(bottom=0)
    left.legend(fontsize=9)
    _similarity_along(right, at, lines, results["layers"])
    for ax in axes[0]:
        ax.set_xlabel("meta-steps")
        ax.xaxis.set_major_formatter(thousands)
        ax.xaxis.set_major_locator(MaxNLocator(5))
    return axes


def _similarity_along(
    ax: Axes, at: Sequence[int], lines: Sequence[JsonObject], layers: Sequence[str]
) -> None:
    """Draw the linear CKA of every layer for which it is defined."""
    for i, layer in enumerate(layers):
        curve = [x["similarity"][i]["cka"] for x in lines]
        if all(x["mean"] is not None for x in curve):
            both = {what: [x[what] for x in curve] for what in ("mean", "ci95")}
            _curve(ax, at, both, COLOURS[i % len(COLOURS)], layer)
    ax.set_ylabel("linear CKA before and after")
    ax.set_ylim(0, 1.04)
    ax.legend(fontsize=8.5)
