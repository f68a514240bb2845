"""Means and their 95 % intervals: printed tables of t, coverage by simulation, digits, shapes."""

import math

import numpy as np
import pytest
from scipy import stats

from innerloop.analysis.analyzed_model import interval
from innerloop.engine.evaluation.curve import Curve
from innerloop.engine.evaluation.intervals import half_width, mean_over_tasks


@pytest.mark.parametrize(
    ("tasks", "t"), [(2, 12.706), (3, 4.303), (10, 2.262), (40, 2.023), (100, 1.984), (10_000, 1.960)]
)
def test_half_width_matches_t_table(tasks: int, t: float):
    """Numbers of mean 0 and deviation s: the half-width is t s / sqrt(n)."""
    values = np.linspace(-1, 1, tasks)
    error = math.sqrt(math.fsum(values**2) / (tasks - 1) / tasks)
    assert half_width(values) / error == pytest.approx(t, abs=6e-4)


@pytest.mark.parametrize("tasks", [2, 5, 40])
def test_interval_coverage_is_95_percent(tasks: int):
    """Of normal scores, 95 % of the intervals hold the true mean: 1.96 in place of t covers 70, 88 and 94.3 %."""
    repeats = 40_000
    values = np.random.default_rng(tasks).normal(3.0, 2.0, (tasks, repeats))
    held = np.abs(mean_over_tasks(values) - 3) <= half_width(values)
    assert abs(held.mean() - 0.95) < 4 * math.sqrt(0.95 * 0.05 / repeats)


def test_interval_matches_scipy():
    values = np.random.default_rng(0).exponential(size=(17, 3))
    low, high = stats.t.interval(0.95, 16, loc=values.mean(0), scale=stats.sem(values))
    np.testing.assert_allclose(mean_over_tasks(values) - half_width(values), low, rtol=1e-12)
    np.testing.assert_allclose(mean_over_tasks(values) + half_width(values), high, rtol=1e-12)


def test_interval_of_float32_scores_is_accurate():
    """Float32 scores far from zero, over many tasks: as exact as the scores are."""
    scores = (1e6 + 10 * np.random.default_rng(1).normal(size=(30_000, 2))).astype(np.float32)
    curve = Curve((0, 1), {"loss": scores})
    for column in range(2):
        exact = [float(x) for x in scores[:, column]]
        mean = math.fsum(exact) / len(exact)
        deviation = math.sqrt(math.fsum((x - mean) ** 2 for x in exact) / (len(exact) - 1))
        assert curve.mean("loss")[column] == pytest.approx(mean, rel=1e-13)
        half = stats.t.ppf(0.975, len(exact) - 1) * deviation / math.sqrt(len(exact))
        assert curve.ci95("loss")[column] == pytest.approx(half, rel=1e-10)
    found = interval(scores)
    assert found == (curve.mean("loss").tolist(), curve.ci95("loss").tolist())
    assert curve.mean("loss").dtype == curve.ci95("loss").dtype == np.float64


def test_half_width_of_single_or_diverged_tasks_is_not_finite():
    """One task; and diverged ones, without a warning."""
    assert np.isnan(half_width(np.ones((1, 3)))).all()
    assert half_width(np.ones((1, 3))).shape == (3,)
    diverged = np.array([[1.0, np.nan], [2.0, 1.0], [np.inf, 1.0]])
    assert not np.isfinite(mean_over_tasks(diverged)).any()
    assert not np.isfinite(half_width(diverged)).any()
    hits = np.array([[True], [False], [True], [True]])
    assert mean_over_tasks(hits)[0] == 0.75
    assert half_width(hits)[0] == pytest.approx(3.182446305 * 0.25)
