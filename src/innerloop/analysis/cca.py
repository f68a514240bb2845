r"""Canonical correlation analysis of two layers on the same points: mean CCA, SVCCA and PWCCA.

For centred activations X `[points, p]` and Y `[points, q]` with orthonormal bases Q_x, Q_y of their columns,

    Q_x^T Q_y = A diag(rho) B^T,        rho_1 >= rho_2 >= ... the canonical correlations,  h_i = Q_x a_i.

mean CCA = mean_i rho_i;  SVCCA: the same after each side keeps the leading singular directions that hold 99 % of its
variance;  PWCCA = sum_i w_i rho_i with w_i proportional to sum_j |<h_i, x_j>|, x_j the columns of X.

Mean CCA is invariant to every invertible linear map of either side, SVCCA to orthogonal maps and scaling. PWCCA is
invariant to scaling and to every invertible map of Y; its weights count the neurons of X one by one.

Hotelling 1936; Raghu et al. 2017 (SVCCA), arXiv 1706.05806; Morcos, Raghu and Bengio 2018 (PWCCA), arXiv 1806.05759.

Bases come from singular value decompositions, not from inverted covariances, which would square the condition number.
Directions whose singular value is rounding error of the activations as given (their own precision, not that of the
computation) are dropped: dead neurons, and neurons that repeat others. With few points CCA says little: of the
correlations, rank_x + rank_y - (points - 1) are 1 whatever the data (`forced`), and independent activations have a
mean well above 0 (about sqrt(p / points) for p = q). Google's code drops the smallest correlations as well (beyond
98 % of their sum), which raises its mean; not so here.
"""

from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from innerloop.analysis.activations import Points, centred, pair
from innerloop.errors import InnerloopError


class Correlations(NamedTuple):
    """Canonical correlations, highest first, and the canonical directions of the first side.

    forced: how many of them are 1 because there are fewer points than dimensions.
    """

    rho: Float[np.ndarray, " directions"]
    directions: Float[np.ndarray, "points directions"]
    forced: int


class Decomposed(NamedTuple):
    """One side, ready to be compared: its centred activations, their left singular vectors and singular values."""

    centred: Points
    left: Points
    singular: Float[np.ndarray, " directions"]


def decomposed(x: Points) -> Decomposed:
    """Centre and decompose `[points, neurons]`."""
    x = centred(x)
    left, singular, _ = np.linalg.svd(x, full_matrices=False)
    return Decomposed(x, left, singular)


def _basis(side: Decomposed, tolerance: float, variance: float = 1.0) -> Points:
    """An orthonormal basis of the centred columns, `[points, rank]`.

    tolerance: singular values under this share of the largest count as zero. variance: keep the fewest leading
    directions that hold this share of the sum of squared singular values.
    """
    singular = side.singular
    rank = int((singular > tolerance * singular[0]).sum()) if singular.size and singular[0] > 0 else 0
    if variance < 1 and rank:
        held = np.cumsum(singular[:rank] ** 2) / np.sum(singular[:rank] ** 2)
        rank = int(np.searchsorted(held, variance)) + 1
    return side.left[:, :rank]


def _precision(*arrays: Any) -> float:
    """The coarsest machine precision among arrays: what their values are good to."""
    kinds = [np.asarray(a).dtype for a in arrays]
    return max(float(np.finfo(kind if kind.kind == "f" else float).eps) for kind in kinds)


def canonical_correlations(
    x: Any, y: Any, *, variance: float = 1.0, tolerance: float | None = None, dtype: Any = np.float64
) -> Correlations:
    """The canonical correlations of two layers' activations `[points, neurons]` (or `[images, ..., channels]`).

    variance: as in SVCCA, the share that each side keeps before. tolerance: what counts as zero beside the largest
    singular value (None: points x precision of the activations). dtype: that of the computation.
    Raises InnerloopError for different points, values that are not finite, and a variance outside (0, 1].
    """
    if not 0 < variance <= 1:
        raise InnerloopError("SVCCA", "`variance` must be in (0, 1]", got=variance)
    if tolerance is None:
        tolerance = default_tolerance(x, y, dtype)
    x, y = pair(x, y, "CCA", dtype)
    return correlate(decomposed(x), decomposed(y), tolerance, variance)


def default_tolerance(x: Any, y: Any, dtype: Any) -> float:
    """Rounding error of the activations as given, grown with the number of points and neurons."""
    size = max(np.shape(x)[0], np.shape(x)[-1], np.shape(y)[-1])
    return size * max(_precision(x, y), float(np.finfo(dtype).eps))


def correlate(x: Decomposed, y: Decomposed, tolerance: float, variance: float = 1.0) -> Correlations:
    """`canonical_correlations` of two sides that are decomposed already."""
    qx, qy = _basis(x, tolerance, variance), _basis(y, tolerance, variance)
    a, rho, _ = np.linalg.svd(qx.T @ qy, full_matrices=False)
    forced = max(0, qx.shape[1] + qy.shape[1] - (len(qx) - 1))
    return Correlations(np.clip(rho, 0.0, 1.0), qx @ a, forced)


def mean_cca(x: Any, y: Any, *, dtype: Any = np.float64) -> float:
    """Mean canonical correlation, in [0, 1]; NaN where a side is constant. Arguments as `canonical_correlations`."""
    return mean(canonical_correlations(x, y, dtype=dtype).rho)


def svcca(x: Any, y: Any, *, variance: float = 0.99, dtype: Any = np.float64) -> float:
    """Mean canonical correlation of the directions that hold `variance` of each side (Raghu et al. 2017)."""
    return mean(canonical_correlations(x, y, variance=variance, dtype=dtype).rho)


def pwcca(x: Any, y: Any, *, dtype: Any = np.float64) -> float:
    """Projection-weighted CCA (Morcos et al. 2018): correlations weighted by how much of `x` they account for.

    It is not symmetric: the weights are those of the first side.
    """
    found = canonical_correlations(x, y, dtype=dtype)
    return weighted(found, centred(pair(x, y, "PWCCA", dtype)[0]))


def weighted(found: Correlations, x: Points) -> float:
    """Correlations weighted by how much of the centred `x` their directions account for."""
    if not found.rho.size:
        return float("nan")
    weights = np.abs(found.directions.T @ x).sum(1)
    return float(found.rho @ weights / weights.sum())


def mean(rho: np.ndarray) -> float:
    """Mean, or NaN of nothing."""
    return float(rho.mean()) if rho.size else float("nan")
