"""Tasks with scores that are not finite, and tasks on which adaptation diverged."""

import numpy as np
import pytest

from innerloop.engine.evaluation.curve import Curve


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        (
            [[3.0, 0.5], [3.0, 4590.0], [2.0, 5.0]],
            [False, True, False],
        ),  # ANIL in the quickstart: 1 of 200 tasks
        ([[3.0, np.nan], [3.0, np.inf], [2.0, 5.0]], [True, True, False]),
        ([[np.nan, np.nan], [np.inf, 1.0]], [True, False]),
        (
            [[0.01, 1.0], [0.02, 2.0], [0.01, 1.5]],
            [False, False, False],
        ),  # all alike: that is what adapting does
        ([[3.0, 299.0], [3.0, 1.0], [3.0, 1.0]], [False, False, False]),
        ([[3.0, 301.0], [3.0, 1.0], [3.0, 1.0]], [True, False, False]),
        ([[0.0, 0.0], [0.0, 1e-9], [0.0, 0.0]], [False, False, False]),
        ([[3.0, 1.0], *9 * [[3.0, 1e6]]], [False, *9 * [True]]),
        ([[3.0], [2.0]], [False, False]),
    ],
)
def test_curve_flags_diverged_and_nonfinite_tasks(rows, expected):
    curve = Curve(tuple(range(len(rows[0]))), {"loss": np.array(rows)})
    assert curve.diverged.tolist() == expected
    assert curve.nonfinite.tolist() == [not np.isfinite(row).all() for row in rows]


def test_returns_diverge_only_if_nonfinite():
    curve = Curve((0, 1), {"return": np.array([[1.0, -1e9], [np.nan, 1.0], [1.0, 2.0]])})
    assert curve.diverged.tolist() == [False, True, False]


def test_curve_repr_counts_diverged_tasks():
    """A loss that grew a hundredfold is finite, and its task diverged."""
    told = repr(Curve((0, 1), {"loss": np.array([[3.0, 1e4], [3.0, 1.0], [3.0, 1.0]])}))
    assert told.endswith("1 of 3 tasks diverged>")
