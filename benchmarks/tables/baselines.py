"""What a statistician would try first: separate models for the groups, a mixed model, a Gaussian process.

Each returns `predict(tasks, k) -> [tasks, query]`, fitted on the training groups, with settings chosen on the
validation groups.
"""

import warnings
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
from scipy.linalg import cho_factor, cho_solve
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import RBF, ConstantKernel, Kernel, StationaryKernelMixin, WhiteKernel
from statsmodels.regression.mixed_linear_model import MixedLM

from benchmarks.tables.families import Fold

Predict = Callable[[Any, int], np.ndarray]
ROWS = 400
"""Training rows for the Gaussian process, whose cost grows with the cube of their number."""


def errors(tasks: Any, predicted: np.ndarray) -> np.ndarray:
    """Root mean squared error over the queries of each task, in standard deviations of y: `[tasks]`."""
    squares = (np.asarray(tasks.query.targets)[..., 0] - predicted) ** 2
    mask = np.ones(squares.shape, bool) if tasks.query.mask is None else np.asarray(tasks.query.mask)
    return np.sqrt((squares * mask).sum(1) / mask.sum(1))


def chosen(fold: Fold, candidates: Iterable[Predict]) -> Predict:
    """For each number of examples, the candidate with the lowest error on the validation groups."""
    candidates = list(candidates)
    found = {
        k: [errors(tasks, predict(tasks, k)).mean() for predict in candidates]
        for k, tasks in fold.validation.items()
    }
    best = {k: candidates[int(np.nanargmin(scores))] for k, scores in found.items()}
    return lambda tasks, k: best[k](tasks, k)


def _each(tasks: Any, k: int, one: Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]) -> np.ndarray:
    """Apply `one(x, y, new)` to every task: predictions for `new` from the examples `x`, `y`."""
    x, y = np.asarray(tasks.support.inputs, float)[:, :k], np.asarray(tasks.support.targets, float)[:, :k, 0]
    return np.stack([one(*args) for args in zip(x, y, np.asarray(tasks.query.inputs, float), strict=True)])


def alone(fold: Fold) -> Predict:
    """Ridge regression on the examples of one group, centred at their mean."""

    def ridge(alpha: float) -> Predict:
        def one(x: np.ndarray, y: np.ndarray, new: np.ndarray) -> np.ndarray:
            centre, inner = x.mean(0), x - x.mean(0)
            slopes = np.linalg.solve(inner.T @ inner + alpha * np.eye(x.shape[1]), inner.T @ (y - y.mean()))
            return y.mean() + (new - centre) @ slopes

        return lambda tasks, k: _each(tasks, k, one)

    return chosen(fold, [ridge(alpha) for alpha in (0.01, 0.1, 1.0, 10.0, 1e6)])


def mixed_model(fold: Fold) -> Predict:
    """A linear mixed model in powers of the main column, with random effects predicted from the examples."""
    return chosen(fold, filter(None, (_mixed(fold, p, r) for p in (1, 2, 3) for r in range(min(p, 2) + 1))))


def _mixed(fold: Fold, powers: int, random: int) -> Predict | None:
    """A mixed model with fixed effects up to one power and random effects up to another; None if the fit fails."""
    groups = fold.table.train
    x, y = np.asarray(groups.inputs, float), np.asarray(groups.targets, float)[:, 0]
    fixed = lambda x: np.column_stack([x[:, 0] ** p for p in range(powers + 1)] + [x[:, 1:][:, _kept(fold)]])
    own = lambda x: np.column_stack([x[:, 0] ** p for p in range(random + 1)])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            model = MixedLM(y, fixed(x), np.repeat(np.arange(len(groups)), groups.sizes), own(x))
            fitted = model.fit(reml=True, method=["lbfgs", "powell"])
        except (np.linalg.LinAlgError, ValueError):
            return None
    slopes, spread, noise = np.asarray(fitted.fe_params), np.asarray(fitted.cov_re), float(fitted.scale)

    def one(x: np.ndarray, y: np.ndarray, new: np.ndarray) -> np.ndarray:
        covariance = own(x) @ spread @ own(x).T + noise * np.eye(len(x))
        effects = spread @ own(x).T @ np.linalg.solve(covariance, y - fixed(x) @ slopes)
        return fixed(new) @ slopes + own(new) @ effects

    return lambda tasks, k: _each(tasks, k, one)


def _kept(fold: Fold) -> list[int]:
    """The columns other than the main one, without one column per category, because those sum to 1."""
    kept, start = [], 0
    for column in fold.table.preparation.x[1:]:
        kept += range(start + (column.width > 1), start + column.width)
        start += column.width
    return kept


class SameGroup(StationaryKernelMixin, Kernel):
    """A kernel that is 1 for two rows of the same group and 0 otherwise; the last column is the group's number."""

    def __init__(self):
        """No parameters; scikit-learn requires an explicit signature."""

    def __call__(self, X, Y=None, eval_gradient=False):
        """The kernel matrix, and an empty gradient, as there are no parameters."""
        same = (X[:, -1:] == (X if Y is None else Y)[:, -1]).astype(float)
        return (same, np.empty((*same.shape, 0))) if eval_gradient else same

    def diag(self, X):
        """Ones, because every row is in its own group."""
        return np.ones(len(X))


GROUP = 1e-9
"""Distance between two groups' numbers, negligible to the other kernels."""


def gaussian_process(fold: Fold) -> Predict:
    """A smooth function shared by all groups plus smooth deviations per group, fitted by marginal likelihood."""
    x, y = _some_rows(fold)
    scales = np.ones(x.shape[1])
    shared = ConstantKernel(1.0, (1e-4, 1e3)) * RBF(scales, (1e-2, 1e3))
    own = ConstantKernel(0.3, (1e-4, 1e3)) + ConstantKernel(0.3, (1e-4, 1e3)) * RBF(1.0, (1e-2, 1e3))
    kernel = shared + SameGroup() * own + WhiteKernel(0.1, (1e-6, 1e1))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        fitted = GaussianProcessRegressor(kernel, normalize_y=False).fit(x, y).kernel_
    noise = fitted.k2.noise_level
    smooth = fitted.k1
    known = cho_factor(smooth(x) + noise * np.eye(len(x)))
    pull = cho_solve(known, y)
    new_group = lambda x: np.column_stack([x, np.full(len(x), -GROUP)])

    def one(own_x: np.ndarray, own_y: np.ndarray, new: np.ndarray) -> np.ndarray:
        mine, asked = new_group(own_x), new_group(new)
        across = smooth(x, mine)
        corner = smooth(mine) + noise * np.eye(len(mine))
        through = cho_solve(known, across)
        weights = np.linalg.solve(corner - across.T @ through, own_y - across.T @ pull)
        return smooth(asked, x) @ (pull - through @ weights) + smooth(asked, mine) @ weights

    return lambda tasks, k: _each(tasks, k, one)


def _some_rows(fold: Fold) -> tuple[np.ndarray, np.ndarray]:
    """At most `ROWS` training rows, at most ten per group, with the group's number as the last column."""
    groups, rng, rows, own = fold.table.train, np.random.default_rng(0), [], []
    starts = np.cumsum(groups.sizes) - groups.sizes
    each = max(2, min(10, ROWS // len(groups)))
    for number in rng.permutation(len(groups)):
        chosen_rows = starts[number] + rng.permutation(groups.sizes[number])[:each]
        if len(rows) + len(chosen_rows) <= ROWS:
            rows += chosen_rows.tolist()
            own += [GROUP * number] * len(chosen_rows)
    x, y = np.asarray(groups.inputs, float)[rows], np.asarray(groups.targets, float)[rows, 0]
    return np.column_stack([x, own]), y
