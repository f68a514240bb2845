"""Plots of single tasks: a wave, a group of a table, walks in the plane."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes

from innerloop.errors import InnerloopError
from innerloop.io.text import counted
from innerloop.report.plots.style import COLOURS, SHADES, Grid, Panels, ink, label

TASK = Grid(height=3.1, width=4.2)


def wave(
    x: np.ndarray,
    truth: np.ndarray,
    support: tuple[np.ndarray, np.ndarray],
    answers: Mapping[int, np.ndarray],
    ax: Axes | None = None,
) -> Axes:
    """Plot a function of one variable: the truth, the support points, and the predictions after inner steps.

    Args:
        x: where to draw it, `[points]`, in increasing order.
        truth: the true values there, `[points]`.
        support: x and y of the support points, each `[shots]`.
        answers: the predictions `[points]` by number of inner steps, at most three.
        ax: the axes to draw on (None: a new figure).

    Returns:
        The axes.
    """
    shades = _shades(len(answers))
    ax = TASK.one(ax)
    ax.plot(x, truth, color=ink(), linewidth=1.2, linestyle=":", label="true wave")
    for colour, (step, y) in zip(shades, answers.items(), strict=True):
        ax.plot(x, y, color=colour, linewidth=2, label=f"after {counted(step, 'step')}")
    ax.plot(*support, "o", color=COLOURS[1], markersize=6, label="support points", zorder=3)
    ax.set_xlabel("x")
    ax.set_ylabel("y")
    look = {"fontsize": 9, "handlelength": 1.5, "columnspacing": 1}
    ax.legend(loc="lower left", bbox_to_anchor=(-0.12, 1), ncols=2, **look)
    return ax


def predictions(
    truth: np.ndarray, answers: Mapping[int, np.ndarray], title: str, name: str, ax: Axes | None = None
) -> Axes:
    """Plot a regression task: predictions after inner steps against true values.

    Args:
        truth: the true values, `[queries]`.
        answers: the predictions `[queries]` by number of inner steps, at most three.
        title: the title of the task.
        name: the name of the predicted quantity.
        ax: the axes to draw on (None: a new figure).

    Returns:
        The axes.
    """
    shades = _shades(len(answers))
    ax = TASK.one(ax)
    for colour, (step, y) in zip(shades, answers.items(), strict=True):
        ax.plot(truth, y, ".", color=colour, markersize=5, label=f"after {counted(step, 'step')}")
    ends = (float(truth.min()), float(truth.max()))
    ax.plot(ends, ends, color=ink(), linewidth=1, linestyle=":")
    ax.set_title(label(title), fontsize=11, loc="right")
    ax.set_xlabel(f"{label(name)}, true")
    ax.set_ylabel(f"{label(name)}, predicted")
    ax.legend(fontsize=9, handlelength=1)
    return ax


def _shades(answers: int) -> Sequence[str]:
    """A colour for each of at most three answers; contrasting ones for two."""
    if not 1 <= answers <= len(SHADES):
        hint = f"choose among the inner steps; at most {len(SHADES)} can be told apart"
        raise InnerloopError("answers", f"must be 1 to {len(SHADES)}", got=answers, hint=hint)
    return SHADES[::2] if answers == 2 else SHADES[-answers:]


def walks_grid(goals: int, policies: int) -> Grid:
    """A row per goal, a column per policy."""
    return Grid(goals, policies, 2.2 * goals + 0.4, 2.2 * policies + 0.4, sharex=True, sharey=True)


def walks(
    goals: np.ndarray,
    positions: Sequence[np.ndarray],
    masks: Sequence[np.ndarray],
    axes: Panels | None = None,
) -> Panels:
    """Plot paths in the plane: a row per goal, a column for the policy after each update.

    Args:
        goals: the goals, `[goals, 2]`.
        positions: `[goals, trajectories, steps, 2]` for each policy.
        masks: 1 for every step taken, `[goals, trajectories, steps]` for each policy.
        axes: the axes to draw on, one per goal and policy (None: a new figure).

    Returns:
        The axes, `[goals, policies]`.
    """
    axes = walks_grid(len(goals), len(positions)).all(axes)
    reach = float(max(0.75, min(2.0, np.percentile(np.abs(positions[-1]), 99) + 0.1)))
    for i, goal in enumerate(goals):
        for j, (walked, mask) in enumerate(zip(positions, masks, strict=True)):
            _walk(axes[i, j], goal, walked[i], mask[i])
            axes[i, j].set_xlim(-reach, reach)
            axes[i, j].set_ylim(-reach, reach)
    for j, ax in enumerate(axes[0]):
        ax.set_title(f"after {counted(j, 'update')}" if j else "before", fontsize=11)
    return axes


def _walk(ax: Axes, goal: np.ndarray, walked: np.ndarray, mask: np.ndarray) -> None:
    """Draw trajectories `[trajectories, steps, 2]` towards one goal."""
    for path, alive in zip(walked, mask, strict=True):
        seen = path[alive > 0]
        ax.plot(*seen.T, color=COLOURS[0], linewidth=0.9, alpha=0.45)
        ax.plot(*seen[-1], ".", color=COLOURS[0], markersize=3, alpha=0.7)
    ax.plot(0, 0, "o", color=ink(), markersize=4)
    ax.plot(*goal, "*", color=COLOURS[1], markersize=13, markeredgecolor="white", zorder=4)
    ax.set_aspect("equal")
