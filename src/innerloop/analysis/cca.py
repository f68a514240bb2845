r"""Canonical correlation analysis of two layers on the same points: mean CCA, SVCCA and PWCCA.

For centred activations X `[points, p]` and Y `[points, q]` with orthonormal bases Q_x, Q_y of their columns,

    Q_x^T Q_y = A diag(rho) B^T,        rho_1 >= rho_2 >= ... the canonical correlations,  h_i = Q_x a_i.

mean CCA = mean_i rho_i;  SVCCA: the same after reducing each side to the leading singular directions that explain 99 %
of its variance;  PWCCA = sum_i w_i rho_i with w_i proportional to sum_j |<h_i, x_j>|, x_j the columns of X.

Mean CCA is invariant to every invertible linear map of either side, SVCCA to orthogonal maps and scaling. PWCCA is
invariant to scaling and to every invertible map of Y; its weights depend on the individual neurons of X.

Hotelling 1936; Raghu et al. 2017 (SVCCA), arXiv 1706.05806; Morcos, Raghu and Bengio 2018 (PWCCA), arXiv 1806.05759.

Bases come from singular value decompositions, not from inverted covariances, which would square the condition number.
Directions whose singular value is within rounding error at the precision of the activations are dropped: they stem from
dead neurons and from duplicates of others. With few points CCA says little: rank_x + rank_y - (points - 1) of the
correlations are 1 whatever the data (`forced`), and independent activations have a mean well above 0 (about
sqrt(p / points) for p = q). Google's code also drops the smallest correlations (beyond 98 % of their sum), which raises
the mean; this module does not.
"""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float
from numpy.typing import DTypeLike

from innerloop.analysis.activations import Either, Points, as_points, centred, pair
from innerloop.config.bounds import FRACTION, POSITIVE_FRACTION, check_argument


class Correlations(NamedTuple):
    """The result of a canonical correlation analysis.

    Attributes:
        rho: the canonical correlations, highest first.
        directions: the canonical directions of the first side, h_i.
        forced: number of correlations that are 1 only because there are too few points.
    """

    rho: Float[np.ndarray, " directions"]
    directions: Float[np.ndarray, "points directions"]
    forced: int


class Decomposed(NamedTuple):
    """One side: its centred activations, their left singular vectors and singular values."""

    centred: Points
    left: Points
    singular: Float[np.ndarray, " directions"]


def decompose(x: Points) -> Decomposed:
    """Centre, scale and decompose `[points, neurons]`."""
    x = centred(x)
    left, singular, _ = np.linalg.svd(x, full_matrices=False)
    return Decomposed(x, left, singular)


def _basis(side: Decomposed, tolerance: float, variance: float = 1.0) -> Points:
    """An orthonormal basis of the centred columns, `[points, rank]`.

    Singular values below `tolerance` times the largest count as zero. Of the other directions, only the leading ones
    that explain the fraction `variance` of the sum of squared singular values are kept.
    """
    singular = side.singular
    rank = int((singular > tolerance * singular[0]).sum()) if singular.size and singular[0] > 0 else 0
    if variance < 1 and rank:
        held = np.cumsum(singular[:rank] ** 2) / np.sum(singular[:rank] ** 2)
        rank = int(np.searchsorted(held, variance)) + 1
    return side.left[:, :rank]


def canonical_correlations(
    x: Either,
    y: Either,
    *,
    variance: float = 1.0,
    tolerance: float | None = None,
    dtype: DTypeLike = np.float64,
) -> Correlations:
    """The canonical correlations of the activations of two layers.

    Args:
        x: activations, `[points, neurons]` or `[images, ..., channels]`.
        y: activations on the same points.
        variance: fraction of each side's variance to keep before the analysis, as in SVCCA.
        tolerance: singular values below this fraction of the largest count as zero (None: the matrix size times the
            machine epsilon of the activations or, in half precision, the root of this epsilon).
        dtype: dtype of the computation, float32 or float64.

    Raises:
        InnerloopError: if the numbers of points differ or are below three, a value is not a finite real number,
            `variance` is outside (0, 1], or `tolerance` outside [0, 1].
    """
    check_argument("SVCCA", "variance", variance, POSITIVE_FRACTION)
    if tolerance is not None:
        check_argument("CCA", "tolerance", tolerance, FRACTION)
    a, b = pair(x, y, "CCA", dtype)
    tolerance = default_tolerance(x, y, dtype) if tolerance is None else tolerance
    return correlate(decompose(a), decompose(b), tolerance, variance)


def default_tolerance(x: Either, y: Either, dtype: DTypeLike) -> float:
    """The larger of the numbers of points and neurons, times the machine epsilon of the activations, or its root.

    The product is a bound on rounding errors that exceeds 1 for a few hundred points in bfloat16; the root is enough.
    """
    size = max(n for side in (x, y) for n in as_points(np.asarray(side)).shape)
    kinds = [np.dtype(dtype), *(np.asarray(side).dtype for side in (x, y))]
    epsilon = max(float(jnp.finfo(kind).eps) for kind in kinds if jnp.issubdtype(kind, jnp.floating))
    return min(size * epsilon, epsilon**0.5)


def correlate(x: Decomposed, y: Decomposed, tolerance: float, variance: float = 1.0) -> Correlations:
    """The canonical correlations of two decomposed sides."""
    qx, qy = _basis(x, tolerance, variance), _basis(y, tolerance, variance)
    a, rho, _ = np.linalg.svd(qx.T @ qy, full_matrices=False)
    forced = max(0, qx.shape[1] + qy.shape[1] - (len(qx) - 1))
    return Correlations(np.clip(rho, 0.0, 1.0), qx @ a, forced)


def mean_cca(x: Either, y: Either, *, dtype: DTypeLike = np.float64) -> float:
    """Mean canonical correlation, in [0, 1]; NaN if a side is constant.

    Arguments and errors are those of `canonical_correlations`.
    """
    return mean_correlation(canonical_correlations(x, y, dtype=dtype).rho)


def svcca(x: Either, y: Either, *, variance: float = 0.99, dtype: DTypeLike = np.float64) -> float:
    """SVCCA, in [0, 1]: mean canonical correlation of the directions that explain `variance` of each side.

    NaN if a side is constant. Arguments and errors are those of `canonical_correlations`.
    """
    return mean_correlation(canonical_correlations(x, y, variance=variance, dtype=dtype).rho)


def pwcca(x: Either, y: Either, *, dtype: DTypeLike = np.float64) -> float:
    """Projection-weighted CCA, in [0, 1]: correlations weighted by how much of `x` they account for.

    Not symmetric, since the weights come from `x`. NaN if a side is constant. Arguments and errors are those of
    `canonical_correlations`.
    """
    found = canonical_correlations(x, y, dtype=dtype)
    return projection_weighted(found, centred(pair(x, y, "PWCCA", dtype)[0]))


def projection_weighted(found: Correlations, x: Points) -> float:
    """Correlations weighted by how much of the centred `x` their directions account for."""
    if not found.rho.size:
        return float("nan")
    weights = np.abs(found.directions.T @ x).sum(1)
    return float(found.rho @ weights / weights.sum())


def mean_correlation(rho: np.ndarray) -> float:
    """The mean correlation; NaN if there are none."""
    return float(rho.mean()) if rho.size else float("nan")
