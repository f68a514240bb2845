"""Plots of the analyses of several runs side by side."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from innerloop.errors import InnerloopError
from innerloop.io.untrusted import JsonObject
from innerloop.report.plots import analysis
from innerloop.report.plots.analysis import columns, freezing_axis, frozen_name, nil_name, scored
from innerloop.report.plots.style import COLOURS, GREY, MARKERS, Grid, Panels, label, legend, scale

Analyses = Mapping[str, JsonObject]
"""The record of `innerloop.analysis.run_all.analyze` for each run, by label."""

FREEZING = Grid(height=3.8, width=6.5)
SIMILARITY = Grid(1, 2, 3.8, 9.0, sharey=True)
NIL = Grid(height=3.4, width=6.5)
MOVEMENT = Grid(1, 2, 3.6, 9.0)


def _checked(
    analyses: Analyses, experiment: str, *conditions: str, check: Callable[..., object] = analysis.found
) -> list[JsonObject]:
    """The records. Raises InnerloopError if there are none, or one lacks an entry that the figure needs."""
    if not analyses:
        raise InnerloopError("analyses", "must hold a run", got="none", hint="give `{label: results}`")
    for results in analyses.values():
        check(results, experiment, *conditions)
    return list(analyses.values())


def distinct(lists: Sequence[Sequence[str]]) -> list[str]:
    """Every name once, those of later runs after those of earlier ones."""
    return list(dict.fromkeys(name for names in lists for name in names))


def _draw_runs(
    ax: Axes,
    analyses: Analyses,
    lists: Sequence[Sequence[str]],
    names: Sequence[str],
    values: Callable[[JsonObject], Sequence[np.ndarray]],
    *,
    bars: bool = False,
) -> None:
    """Draw every run's `(means, intervals)` at its own names, one of `lists`, beside those of the other runs."""
    many = len(analyses)
    wide = 0.8 / many
    spread = 0.8 - wide if bars else 0.5
    for i, (run, results) in enumerate(analyses.items()):
        at = np.array([names.index(name) for name in lists[i]])
        at = at if many == 1 else at + spread * (i / (many - 1) - 0.5)
        mean, half = values(results)
        look: dict[str, Any] = {"color": COLOURS[i % len(COLOURS)], "capsize": 3, "label": label(run)}
        if bars:
            ax.bar(at, mean, wide, yerr=half, **look)
            ax.grid(axis="x", visible=False)
        else:
            ax.errorbar(at, mean, half, fmt=MARKERS[i % len(MARKERS)], markersize=6, **look)


def freezing_of_runs(analyses: Analyses, ax: Axes | None = None) -> Axes:
    """Plot the score of every run with the inner loop switched off for more and more layers.

    Args:
        analyses: records with the experiment `freeze`, all with the same score.
        ax: where to draw (None: on a new figure).

    Returns:
        The axes.
    """
    found = _checked(analyses, "freeze", "layers", check=scored)
    if len(metrics := {results["metric"] for results in found}) > 1:
        hint = "plot regressions and classifications separately"
        raise InnerloopError(
            "analyses", "must have the same score", got=" and ".join(sorted(metrics)), hint=hint
        )
    ax, metric = FREEZING.one(ax), found[0]["metric"]
    named = [[frozen_name(x["frozen"], r["layers"]) for x in r["freeze"]] for r in found]
    names = in_order(named)
    _draw_runs(ax, analyses, named, names, lambda r: columns(r["freeze"], metric, "ci95", by=scale(metric)))
    freezing_axis(ax, found, names)
    legend(ax, len(found))
    return ax


def in_order(lists: Sequence[Sequence[str]]) -> list[str]:
    """All names of frozen sets: `none` first, the whole body and everything last."""
    names, last = distinct(lists), ("body", "all")
    return [name for name in names if name not in last] + [name for name in last if name in names]


def similarity_of_runs(analyses: Analyses, axes: Panels | None = None) -> Panels:
    """Plot each run's linear CKA and mean CCA of every layer before and after adaptation.

    Args:
        analyses: records with the experiment `similarity`.
        axes: two axes to draw on (None: a new figure).

    Returns:
        The axes, `[1, 2]`.
    """
    found = _checked(analyses, "similarity")
    axes = SIMILARITY.all(axes)
    layers = [[x["layer"] for x in r["similarity"]] for r in found]
    names = in_order_of_layers(layers)
    for ax, (measure, title) in zip(axes[0], {"cka": "linear CKA", "cca": "mean CCA"}.items(), strict=True):
        values = lambda r, measure=measure: columns([x[measure] for x in r["similarity"]], "mean", "ci95")
        _draw_runs(ax, analyses, layers, names, values)
        ax.set_xticks(range(len(names)), list(map(label, names)))
        ax.set_ylabel(f"{title} before and after")
        ax.set_ylim(0, 1.04)
    legend(axes[0, 0], len(found))
    return axes


def in_order_of_layers(layers: Sequence[Sequence[str]]) -> list[str]:
    """The names of all layers, the heads last."""
    heads = distinct([names[-1:] for names in layers])
    return [name for name in distinct(layers) if name not in heads] + heads


def nil_of_runs(analyses: Analyses, ax: Axes | None = None) -> Axes:
    """Plot the accuracy of every run with the inner loop, and of NIL on its trained and untrained body.

    Args:
        analyses: records with the experiment `nil`.
        ax: the axes to draw on (None: a new figure).

    Returns:
        The axes.
    """
    found = _checked(analyses, "nil", "ways")
    ax = NIL.one(ax)
    named = [[nil_name(x) for x in r["nil"]] for r in found]
    names, values = distinct(named), lambda r: columns(r["nil"], "accuracy", "ci95", by=100.0)
    _draw_runs(ax, analyses, named, names, values, bars=True)
    for level in {100 / r["ways"] for r in found}:
        ax.axhline(level, color=GREY, linewidth=1, linestyle=":")
    ax.set_xticks(range(len(names)), list(map(label, names)))
    ax.set_ylabel("accuracy, % (dotted: chance)")
    ax.set_ylim(0, 106)
    legend(ax, len(found))
    return ax


def movement_of_runs(analyses: Analyses, axes: Panels | None = None) -> Panels:
    """Plot how far each layer of every run moves: relative norm and angle.

    Args:
        analyses: records with the experiment `weights`.
        axes: two axes to draw on (None: a new figure).

    Returns:
        The axes, `[1, 2]`.
    """
    found = _checked(analyses, "weights")
    axes = MOVEMENT.all(axes)
    layers = [[x["layer"] for x in r["weights"]] for r in found]
    names = in_order_of_layers(layers)
    for ax, (what, unit) in zip(axes[0], analysis.MOVEMENTS.items(), strict=True):
        values = lambda r, what=what: columns(r["weights"], what, f"{what}_ci95")
        _draw_runs(ax, analyses, layers, names, values, bars=True)
        ax.set_xticks(range(len(names)), list(map(label, names)), fontsize=9)
        ax.set_ylabel(unit)
    legend(axes[0, 0], len(found))
    return axes
