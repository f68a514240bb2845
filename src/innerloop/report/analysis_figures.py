"""The figures of an analysis, in the report's style and colours."""

from collections.abc import Sequence

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from innerloop.analysis.records import Record
from innerloop.report.run_figures import COLOURS, GREY, MARKERS, STYLE, legend, panels, thousands


def _scale(results: Record) -> float:
    """100 for accuracies, which are shown in percent."""
    return 100.0 if results["metric"] == "accuracy" else 1.0


def _score_name(results: Record) -> str:
    """What the score is called on an axis."""
    return "accuracy on queries, %" if results["metric"] == "accuracy" else "squared error on queries"


def frozen_name(names: Sequence[str], layers: Sequence[str]) -> str:
    """A short name of a set of frozen layers: `none`, `conv1-conv3`, `body`, `all`."""
    names = list(names)
    if names in ([], list(layers), list(layers[:-1])):
        return {0: "none", len(layers): "all", len(layers) - 1: "body"}[len(names)]
    start = layers.index(names[0])
    run = len(names) > 1 and names == list(layers[start : start + len(names)])
    return f"{names[0]}–{names[-1]}" if run else " + ".join(names)


def _chance(axes: Axes, results: Record) -> None:
    """A line at the accuracy of guessing."""
    if results["metric"] != "accuracy":
        return
    level = 100 / results["ways"]
    axes.axhline(level, color=GREY, linewidth=1, linestyle=":")
    axes.annotate(
        "chance",
        (0.01, level),
        xycoords=("axes fraction", "data"),
        ha="left",
        va="bottom",
        color=GREY,
        fontsize=9,
    )


@matplotlib.rc_context(STYLE)
def _freeze(results: Record) -> Figure:
    """The score with the inner loop off for more and more layers."""
    figure, ((axes,),) = panels(1, 1, 3.6)
    lines, by = results["freeze"], _scale(results)
    mean = by * np.array([x[results["metric"]] for x in lines])
    half = by * np.array([x["ci95"] for x in lines])
    axes.errorbar(range(len(lines)), mean, half, fmt="o", color=COLOURS[0], capsize=4, markersize=7)
    for i, value in enumerate(mean):
        text = f"{value:.1f}" if by == 100 else f"{value:.3g}"
        axes.annotate(text, (i, value), (8, 0), textcoords="offset points", va="center", fontsize=9.5)
    axes.set_xticks(range(len(lines)), [frozen_name(x["frozen"], results["layers"]) for x in lines])
    axes.set_xlim(-0.4, len(lines) - 0.3)
    axes.set_xlabel("layers whose inner loop is switched off")
    axes.set_ylabel(_score_name(results))
    axes.set_ylim(0, 106 if by == 100 else None)
    axes.tick_params(axis="x", labelsize=8.5)
    _chance(axes, results)
    return figure


@matplotlib.rc_context(STYLE)
def _similarity(results: Record, name: str = "similarity") -> Figure:
    """CCA and CKA of every layer with their intervals, and what shuffled points give."""
    figure, ((axes,),) = panels(1, 1, 3.6)
    lines = results[name]
    shown = {"cca": "mean CCA", "pwcca": "PWCCA", "cka": "linear CKA"}
    for i, (measure, label) in enumerate(shown.items()):
        at = np.arange(len(lines)) + 0.16 * (i - 1)
        axes.errorbar(
            at,
            *_column(lines, measure),
            fmt=MARKERS[i],
            color=COLOURS[i],
            capsize=3,
            markersize=6,
            label=label,
        )
        if measure != "pwcca":
            floor = [x["chance"][measure]["mean"] for x in lines]
            kind = {"cca": "shuffled, CCA", "cka": "shuffled, CKA"}[measure]
            axes.plot(at, floor, marker=MARKERS[i], color=COLOURS[i], mfc="none", linestyle="", label=kind)
    axes.set_xticks(range(len(lines)), [x["layer"] for x in lines])
    axes.set_ylim(0, 1.04)
    axes.set_ylabel("similarity" if name == "similarity" else "similarity of the two models")
    legend(axes, 3)
    return figure


def _column(lines: Sequence[Record], name: str) -> tuple[np.ndarray, np.ndarray]:
    """Means and intervals of one measure; NaN where it is undefined."""
    value = lambda x, what: np.nan if x[name][what] is None else x[name][what]
    return np.array([value(x, "mean") for x in lines]), np.array([value(x, "ci95") for x in lines])


@matplotlib.rc_context(STYLE)
def _nil(results: Record) -> Figure:
    """Accuracy with the inner loop, and without any on several bodies."""
    figure, ((axes,),) = panels(1, 1, 2.4)
    lines = results["nil"][::-1]
    names = [nil_name(x) for x in lines]
    mean = np.array([100 * x["accuracy"] for x in lines])
    half = np.array([100 * x["ci95"] for x in lines])
    colours = [
        COLOURS[0] if x["inner_loop"] else GREY if x["body"] == "random" else COLOURS[1] for x in lines
    ]
    axes.barh(range(len(lines)), mean, xerr=half, color=colours, height=0.55, error_kw={"capsize": 4})
    for i, value in enumerate(mean):
        axes.annotate(f"{value:.1f}", (2, i), va="center", color="white", fontweight="bold", fontsize=10)
    axes.set_yticks(range(len(lines)), names)
    axes.grid(axis="y", visible=False)
    axes.set_xlim(0, 100)
    axes.axvline(100 / results["ways"], color=GREY, linewidth=1, linestyle=":")
    axes.set_xlabel("accuracy on queries, % (dotted: chance)")
    return figure


def nil_name(line: Record) -> str:
    """A line of the NIL table in words."""
    if line["inner_loop"]:
        return "with inner loop and head"
    return "NIL, untrained body" if line["body"] == "random" else f"NIL, {line['body']} body"


@matplotlib.rc_context(STYLE)
def _weights(results: Record) -> Figure:
    """How far each layer moves: relative length and angle."""
    figure, axes = panels(1, 2, 3.2, 7.5)
    lines = results["weights"]
    names = [x["layer"] for x in lines]
    colours = [COLOURS[1] if x["head"] else COLOURS[0] for x in lines]
    for one, what, unit in zip(
        axes[0], ("relative", "angle"), ("length of the change / norm", "angle, degrees"), strict=True
    ):
        error = [x[f"{what}_ci95"] for x in lines]
        one.bar(range(len(lines)), [x[what] for x in lines], yerr=error, color=colours, capsize=3)
        one.set_xticks(range(len(lines)), names, fontsize=9)
        one.set_ylabel(unit)
        one.grid(axis="x", visible=False)
    return figure


@matplotlib.rc_context(STYLE)
def _steps(results: Record) -> Figure:
    """Score, losses, and gradient and movement of each layer after every inner step."""
    figure, axes = panels(2, 2, 5.6, 8.0, sharex=True)
    found, (score, loss), (gradient, moved) = results["steps"], *axes
    x = found["steps"]
    if "accuracy" in found:
        _band(score, x, found["accuracy"], COLOURS[0], "", 100.0)
        score.set_ylabel("accuracy on queries, %")
        _chance(score, results)
        score.set_ylim(0, 103)
    else:
        _band(score, x, found["loss"], COLOURS[0], "")
        score.set_ylabel("squared error on queries")
    _band(loss, x, found["support_loss"], COLOURS[0], "support")
    _band(loss, x, found["loss"], COLOURS[1], "queries")
    loss.set_ylabel("loss")
    loss.legend(fontsize=9)
    for i, (name, layer) in enumerate(found["layers"].items()):
        _band(gradient, x, layer["gradient"], COLOURS[i % len(COLOURS)], name)
        _band(moved, x, layer["moved"], COLOURS[i % len(COLOURS)], name)
    gradient.set_yscale("log")
    gradient.set_ylabel("norm of the support gradient")
    moved.set_ylabel("distance from θ / norm")
    moved.legend(fontsize=8.5)
    for one in (gradient, moved):
        one.set_xlabel("inner steps")
        one.set_xticks(x)
    return figure


def _band(
    axes: Axes, x: Sequence[int | float], curve: Record, colour: str, label: str, by: float = 1.0
) -> None:
    """A curve with its interval."""
    mean, half = by * np.array(curve["mean"]), by * np.array(curve["ci95"])
    axes.plot(x, mean, color=colour, label=label or None, marker="o", markersize=3.5, linewidth=1.7)
    axes.fill_between(x, mean - half, mean + half, color=colour, alpha=0.18, linewidth=0)


@matplotlib.rc_context(STYLE)
def _landscape_line(results: Record) -> Figure:
    """The loss along each task's own first step."""
    figure, ((axes,),) = panels(1, 1, 3.4)
    found = results["landscape"]["line"]
    _band(axes, found["along"], found["support_loss"], COLOURS[0], "support")
    _band(axes, found["along"], found["query_loss"], COLOURS[1], "queries")
    for at, name in ((0, "θ"), (1, "one inner step")):
        axes.axvline(at, color=GREY, linewidth=1, linestyle=":")
        axes.annotate(name, (at, 0.97), (3, 0), xycoords=("data", "axes fraction"), textcoords="offset points",
                      color=GREY, fontsize=9, va="top")  # fmt: skip
    axes.set_xlabel("inner steps gone along the first gradient")
    axes.set_ylabel("loss")
    axes.set_ylim(bottom=0)
    axes.legend(loc="upper right", fontsize=9)
    return figure


@matplotlib.rc_context(STYLE)
def _landscape_plane(results: Record) -> Figure:
    """The losses of two tasks on the plane of their first steps, with their inner-loop paths."""
    figure, axes = panels(1, 2, 3.7, 8.0, sharey=True)
    found = results["landscape"]["plane"]
    losses = [np.log10(np.maximum(np.array(values), 1e-4)) for values in found["losses"]]
    levels = np.linspace(min(x.min() for x in losses), max(x.max() for x in losses), 16)
    levels = levels if levels[-1] > levels[0] else levels[0] + np.linspace(0, 1, 16)
    shown = None
    for i, (one, values) in enumerate(zip(axes[0], losses, strict=True)):
        shown = one.contourf(found["grid"], found["grid"], values, levels=levels, cmap="viridis")
        for j, path in enumerate(found["paths"]):
            path = np.array(path)
            own = {"color": "white" if i == j else "#d0d0d0", "linewidth": 2 if i == j else 1.2}
            one.plot(*path.T, marker="o", markersize=4, linestyle="-" if i == j else "--", **own)
        one.plot(0, 0, "*", color="#D55E00", markersize=13)
        one.set_title(f"loss of task {i + 1}", fontsize=11)
        one.set_xlabel("steps of task 1")
        one.grid(visible=False)
    axes[0][0].set_ylabel("steps of task 2")
    bar = figure.colorbar(shown, ax=axes[0], ticks=MaxNLocator(5))  # pyright: ignore[reportArgumentType]
    bar.ax.yaxis.set_major_formatter(lambda value, _: f"{10**value:.2g}")
    bar.set_label("query loss, on a log scale")
    return figure


@matplotlib.rc_context(STYLE)
def _paths(results: Record) -> Figure:
    """Inner-loop paths of body and head: with the outer loop, and around θ."""
    figure, axes = panels(2, 2, 7.6, 8.0)
    found = results["paths"]
    for column, part in enumerate(("body", "head")):
        wide, close = axes[0][column], axes[1][column]
        outer = np.array(found[part]["outer"])
        if len(outer):
            wide.plot(*outer.T, color="black", linewidth=1.6, marker=".", markersize=5, label="outer loop")
            wide.annotate("start", outer[0], (0, 7), textcoords="offset points", ha="center", fontsize=9)
        for view, one in (("wide", wide), ("close", close)):
            for i, path in enumerate(found[part][view]):
                look = {"color": COLOURS[i % 6], "linewidth": 1.6, "marker": "o", "markersize": 3}
                one.plot(*np.array(path).T, label="inner loops" if (view, i) == ("wide", 0) else None, **look)
            one.plot(0, 0, "*", color="#D55E00", markersize=12, zorder=4)
            one.annotate("θ", (0, 0), (4, 6), textcoords="offset points", fontsize=11)
            one.set_aspect("equal", adjustable="datalim")
        wide.set_title(f"{part}: outer and inner loops", fontsize=11)
        close.set_title(f"{part}: inner loops alone", fontsize=11)
    _same_scale(axes[0])
    _same_scale(axes[1])
    axes[0][0].legend(fontsize=9, loc="lower left")
    figure.supylabel("units of the norm of θ's part", fontsize=10)
    return figure


def _same_scale(row: np.ndarray) -> None:
    """Give all axes of a row the scale of the widest, so that lengths can be compared."""
    boxes = [axes.dataLim for axes in row]
    half = 0.56 * max(max(box.width, box.height, 1e-9) for box in boxes)
    for axes, box in zip(row, boxes, strict=True):
        axes.set_xlim((box.x0 + box.x1) / 2 - half, (box.x0 + box.x1) / 2 + half)
        axes.set_ylim((box.y0 + box.y1) / 2 - half, (box.y0 + box.y1) / 2 + half)
        axes.set_aspect("equal", adjustable="box")


@matplotlib.rc_context(STYLE)
def early(results: Record) -> Figure:
    """Freezing and similarity along training."""
    figure, axes = panels(1, 2, 3.6, 8.5)
    (left, right), lines, by = axes[0], results["early"], _scale(results)
    at = [x["meta_step"] for x in lines]
    for i, name in enumerate(("nothing frozen", "body frozen")):
        mean = [x["freeze"][i][results["metric"]] for x in lines]
        half = [x["freeze"][i]["ci95"] for x in lines]
        _band(left, at, {"mean": mean, "ci95": half}, COLOURS[i], name, by)
    left.set_ylabel(_score_name(results))
    left.set_ylim(bottom=0)
    left.legend(fontsize=9)
    for i, layer in enumerate(results["layers"]):
        curve = [x["similarity"][i]["cka"] for x in lines]
        if all(x["mean"] is not None for x in curve):
            both = {what: [x[what] for x in curve] for what in ("mean", "ci95")}
            _band(right, at, both, COLOURS[i % len(COLOURS)], layer)
    right.set_ylabel("linear CKA before and after")
    right.set_ylim(0, 1.04)
    right.legend(fontsize=8.5)
    for one in axes[0]:
        one.set_xlabel("meta-steps")
        one.xaxis.set_major_formatter(thousands)
        one.xaxis.set_major_locator(MaxNLocator(5))
    return figure


def drawn(results: Record) -> dict[str, Figure]:
    """All figures that the results allow, by file name."""
    own = {"freeze": _freeze, "similarity": _similarity, "nil": _nil, "weights": _weights, "steps": _steps}
    own |= {"paths": _paths, "early": early}
    found = {name: draw(results) for name, draw in own.items() if name in results}
    if "landscape" in results:
        found |= {"landscape-line": _landscape_line(results), "landscape-plane": _landscape_plane(results)}
    if "against" in results:
        found["against"] = _similarity(results, "against")
    return found
