"""The figures of a report, in the report's style and colours."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure

from innerloop.report.measurements import Group
from innerloop.report.plots import runs, tasks
from innerloop.report.plots.runs import Curve, Training
from innerloop.report.plots.style import draw_figure


def adaptation(group: Group) -> Figure:
    """The score after each inner step, with its 95 % interval or its standard deviation over seeds."""
    curves = [Curve(r.label, r.measurement, r.baseline) for r in group.runs + group.baselines]
    return draw_figure(runs.ADAPTATION, runs.adaptation_curves, curves)


def training(group: Group) -> Figure | None:
    """Outer loss and validation score during training; None if no run has metrics."""
    kept = [Training(run.label, [member.metrics for member in run.members]) for run in group.runs]
    if not any(lines for one in kept for lines in one.metrics):
        return None
    score = group.runs[0].score
    return draw_figure(runs.training_grid(kept, score), runs.training_curves, kept, score)


def wave(
    x: np.ndarray,
    truth: np.ndarray,
    support: tuple[np.ndarray, np.ndarray],
    answers: Mapping[int, np.ndarray],
) -> Figure:
    """One sinusoid; see `innerloop.report.plots.wave`."""
    return draw_figure(tasks.TASK, tasks.wave, x, truth, support, answers)


def fit(truth: np.ndarray, answers: Mapping[int, np.ndarray], title: str, name: str) -> Figure:
    """One group of a table; see `innerloop.report.plots.predictions`."""
    return draw_figure(tasks.TASK, tasks.predictions, truth, answers, title, name)


def walks(goals: np.ndarray, positions: Sequence[np.ndarray], masks: Sequence[np.ndarray]) -> Figure:
    """Paths in the plane; see `innerloop.report.plots.walks`."""
    grid = tasks.walks_grid(len(goals), len(positions))
    return draw_figure(grid, tasks.walks, goals, positions, masks)
