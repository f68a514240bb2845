r"""Means over tasks and their 95 % intervals; the library computes them nowhere else.

    mean +- t s / sqrt(n),     s^2 = sum_i (x_i - mean)^2 / (n - 1)

with t the 0.975 quantile of Student's distribution with n - 1 degrees of freedom: 12.7 for two tasks, 2.02 for 40, 1.96
for many. The interval is exact for normal scores, and says nothing about other training seeds. All sums are in
float64: float32 loses digits over thousands of tasks.

Student 1908, "The probable error of a mean".
"""

import numpy as np
from scipy.special import stdtrit


def mean_over_tasks(values: np.ndarray) -> np.ndarray:
    """Mean over the leading axis (tasks), in float64."""
    with np.errstate(invalid="ignore", over="ignore"):  # diverged tasks, which are counted elsewhere
        return np.asarray(np.mean(values, axis=0, dtype=np.float64))


def half_width(values: np.ndarray) -> np.ndarray:
    """Half-width of the 95 % interval of the mean over the leading axis (tasks), in float64; NaN for a single task."""
    count = len(values)
    if count < 2:
        return np.full(np.shape(values)[1:], np.nan)
    with np.errstate(invalid="ignore", over="ignore"):
        deviation = np.std(values, axis=0, ddof=1, dtype=np.float64)
        return np.asarray(stdtrit(count - 1, 0.975) * deviation / np.sqrt(count))
