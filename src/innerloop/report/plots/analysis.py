"""Plots of an analysis: what its experiments measured on layers.

`results` is the record of `innerloop.analysis.run_all.analyze`, or one with the same entries: the experiment under its
name, `metric` (`accuracy` or `loss`), `layers`, and for accuracies `ways`.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from innerloop.errors import InnerloopError
from innerloop.io.untrusted import JsonObject
from innerloop.report.plots import style
from innerloop.report.plots.style import COLOURS, GREY, LABELS, MARKERS, Grid, Panels, chance, legend, scale

FREEZING, SIMILARITY, NIL = Grid(), Grid(), Grid(height=2.4)
MOVEMENT = Grid(columns=2, height=3.2, width=7.5)
MOVEMENTS = {"relative": "length of the change / norm", "angle": "angle, degrees"}
"""The two panels of a figure of movement: entries of records, and axis labels."""


def found(results: JsonObject, experiment: str, *conditions: str) -> Any:
    """Return what an experiment measured.

    Args:
        results: a record of an analysis.
        experiment: the experiment's name.
        conditions: other entries that the figure needs.

    Raises:
        InnerloopError: if one of them is missing.
    """
    if experiment not in results and experiment == "nil" and results.get("metric") == "loss":
        raise InnerloopError("nil", "there is no NIL for regression", hint="plot `freezing`")
    for name in (experiment, *conditions):
        if name not in results:
            hint = (
                f'run `analyze(request, ["{name}"])`'
                if name == experiment
                else "add it next to the experiments"
            )
            raise InnerloopError(
                "results", f"must hold `{name}`", got=", ".join(results) or "nothing", hint=hint
            )
    return results[experiment]


def scored(results: JsonObject, experiment: str, *conditions: str) -> Any:
    """`found` for a figure of scores, which for accuracies shows chance."""
    ways = ("ways",) if results.get("metric") == "accuracy" else ()
    return found(results, experiment, "metric", *conditions, *ways)


def frozen_name(names: Sequence[str], layers: Sequence[str]) -> str:
    """A short name of a set of frozen layers: `none`, `conv1-conv3`, `body`, `all`."""
    names = list(names)
    if not names:  # also the body, if the head is the only layer
        return "none"
    if names in (list(layers), list(layers[:-1])):
        return "all" if len(names) == len(layers) else "body"
    start = layers.index(names[0])
    run = len(names) > 1 and names == list(layers[start : start + len(names)])
    return f"{names[0]}–{names[-1]}" if run else " + ".join(names)


def nil_name(line: JsonObject) -> str:
    """A line of the NIL table in words."""
    if line["inner_loop"]:
        return "with inner loop and head"
    return "NIL, untrained body" if line["body"] == "random" else f"NIL, {line['body']} body"


def freezing(results: JsonObject, ax: Axes | None = None) -> Axes:
    """Plot the score with the inner loop switched off for more and more layers, with 95 % intervals over tasks.

    Args:
        results: a record with the experiment `freeze`.
        ax: the axes to draw on (None: a new figure).

    Returns:
        The axes.
    """
    lines, metric = scored(results, "freeze", "layers"), results["metric"]
    ax = FREEZING.one(ax)
    mean, half = columns(lines, metric, "ci95", by=scale(metric))
    ax.errorbar(range(len(lines)), mean, half, fmt="o", color=COLOURS[0], capsize=4, markersize=7)
    for i, value in enumerate(mean):
        text = f"{value:.1f}" if metric == "accuracy" else f"{value:.3g}"
        ax.annotate(text, (i, value), (8, 0), textcoords="offset points", va="center", fontsize=9.5)
    ax.set_xlim(-0.4, len(lines) - 0.3)
    freezing_axis(ax, [results], [frozen_name(x["frozen"], results["layers"]) for x in lines])
    return ax


def freezing_axis(ax: Axes, runs: Sequence[JsonObject], names: Sequence[str]) -> None:
    """Label the axes of a freezing figure; all runs have the same score."""
    results = runs[0]
    ax.set_xticks(range(len(names)), list(map(style.label, names)))
    ax.set_xlabel("layers whose inner loop is switched off")
    ax.set_ylabel(LABELS[results["metric"]])
    ax.set_ylim(0, 106 if results["metric"] == "accuracy" else None)
    ax.tick_params(axis="x", labelsize=8.5)
    if results["metric"] == "accuracy":
        chance(ax, [run["ways"] for run in runs], 0.01, "left")


def similarity(results: JsonObject, ax: Axes | None = None) -> Axes:
    """Plot each layer's similarity before and after adaptation: CCA, PWCCA and CKA with intervals, and chance.

    Args:
        results: a record with the experiment `similarity`.
        ax: the axes to draw on (None: a new figure).

    Returns:
        The axes.
    """
    ax = _similarities(found(results, "similarity"), ax)
    ax.set_ylabel("similarity")
    return ax


def similarity_of_models(results: JsonObject, ax: Axes | None = None) -> Axes:
    """Plot the similarity of each layer of two models on the same inputs, like `similarity`.

    Args:
        results: a record with the experiment `against`.
        ax: the axes to draw on (None: a new figure).

    Returns:
        The axes.
    """
    ax = _similarities(found(results, "against"), ax)
    ax.set_ylabel("similarity of the two models")
    return ax


def _similarities(lines: Sequence[JsonObject], ax: Axes | None) -> Axes:
    ax = SIMILARITY.one(ax)
    shown = {"cca": "mean CCA", "pwcca": "PWCCA", "cka": "linear CKA"}
    for i, (measure, label) in enumerate(shown.items()):
        at = np.arange(len(lines)) + 0.16 * (i - 1)
        look = {"fmt": MARKERS[i], "color": COLOURS[i], "capsize": 3, "markersize": 6, "label": label}
        mean, half = columns([x[measure] for x in lines], "mean", "ci95")
        ax.errorbar(at, mean, half, **look)
        if measure != "pwcca":
            floor = [x["chance"][measure]["mean"] for x in lines]
            kind = {"cca": "shuffled, CCA", "cka": "shuffled, CKA"}[measure]
            ax.plot(at, floor, marker=MARKERS[i], color=COLOURS[i], mfc="none", linestyle="", label=kind)
    ax.set_xticks(range(len(lines)), [style.label(x["layer"]) for x in lines])
    ax.set_ylim(0, 1.04)
    legend(ax, 3)
    return ax


def columns(lines: Sequence[JsonObject], *names: str, by: float = 1.0) -> list[np.ndarray]:
    """Scaled entries of records by name, each `[lines]`; NaN, which gives no mark, where undefined."""
    return [by * np.array([x[name] for x in lines], float) for name in names]


def nil(results: JsonObject, ax: Axes | None = None) -> Axes:
    """Plot the accuracy with the inner loop, and of NIL on the trained and the untrained body.

    Args:
        results: a record with the experiment `nil`.
        ax: the axes to draw on (None: a new figure).

    Returns:
        The axes.
    """
    lines = found(results, "nil", "ways")[::-1]
    ax = NIL.one(ax)
    mean, half = columns(lines, "accuracy", "ci95", by=100.0)
    plain = lambda x: GREY if x["body"] == "random" else COLOURS[1]
    colours = [COLOURS[0] if x["inner_loop"] else plain(x) for x in lines]
    ax.barh(range(len(lines)), mean, xerr=half, color=colours, height=0.55, error_kw={"capsize": 4})
    for i, value in enumerate(mean):
        ax.annotate(f"{value:.1f}", (2, i), va="center", color="white", fontweight="bold", fontsize=10)
    ax.set_yticks(range(len(lines)), [style.label(nil_name(x)) for x in lines])
    ax.grid(axis="y", visible=False)
    ax.set_xlim(0, 100)
    ax.axvline(100 / results["ways"], color=GREY, linewidth=1, linestyle=":")
    ax.set_xlabel("accuracy on queries, % (dotted: chance)")
    return ax


def movement(results: JsonObject, axes: Panels | None = None) -> Panels:
    """Plot how far each layer moves: relative norm and angle.

    Args:
        results: a record with the experiment `weights`.
        axes: two axes to draw on (None: a new figure).

    Returns:
        The axes, `[1, 2]`.
    """
    lines = found(results, "weights")
    axes = MOVEMENT.all(axes)
    names = [style.label(x["layer"]) for x in lines]
    colours = [COLOURS[1] if x["head"] else COLOURS[0] for x in lines]
    for ax, (what, unit) in zip(axes[0], MOVEMENTS.items(), strict=True):
        height, error = columns(lines, what, f"{what}_ci95")
        ax.bar(range(len(lines)), height, yerr=error, color=colours, capsize=3)
        ax.set_xticks(range(len(lines)), names, fontsize=9)
        ax.set_ylabel(unit)
        ax.grid(axis="x", visible=False)
    return axes
