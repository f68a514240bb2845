r"""Centred kernel alignment of two layers on the same points: linear (biased and debiased) and RBF.

For kernel matrices K, L of the two sides, `[points, points]`, and H = I - 11^T / n,

    CKA = HSIC(K, L) / sqrt(HSIC(K, K) HSIC(L, L)),      HSIC(K, L) = tr(K H L H) / (n - 1)^2      (biased)

    HSIC_1(K, L) = [ tr(K~ L~) + 1^T K~ 1 1^T L~ 1 / ((n-1)(n-2)) - 2 1^T K~ L~ 1 / (n-2) ] / (n (n-3))   (debiased)

with K~ = K with a zero diagonal. For independent activations with more neurons than points, the biased value is high;
the debiased one is near 0 (and may be negative).

Kornblith, Norouzi, Lee and Hinton 2019, arXiv 1905.00414; HSIC_1: Song et al. 2012, equation 5, arXiv 1203.4521.

Linear kernels K = X X^T are not formed when X has fewer columns than rows. CKA is invariant to orthogonal maps and
scaling of either side, but not to every invertible map.
"""

import numpy as np
from jaxtyping import Float
from numpy.typing import DTypeLike

from innerloop.analysis.activations import Either, Points, centred, pair
from innerloop.config.bounds import POSITIVE, check_argument
from innerloop.errors import InnerloopError, check_flag

Others = Float[np.ndarray, "points others"]
Kernel = Float[np.ndarray, "points points"]


def linear_cka(x: Either, y: Either, *, debiased: bool = False, dtype: DTypeLike = np.float64) -> float:
    """Linear CKA of the activations of two layers.

    Args:
        x: activations, `[points, neurons]` or `[images, ..., channels]`.
        y: activations on the same points.
        debiased: whether to use the debiased HSIC_1.
        dtype: dtype of the computation, float32 or float64.

    Returns:
        CKA in [0, 1], or at most 1 if debiased; NaN if a side is constant.

    Raises:
        InnerloopError: if the numbers of points differ, a value is not a finite real number, or there are fewer than
            three points, or four for debiased CKA.
    """
    check_flag("CKA", "debiased", debiased)
    x, y = (centred(a) for a in pair(x, y, "CKA", dtype))
    inner = _linear_hsic1 if debiased else _linear_hsic
    if debiased:
        _check_four(len(x))
    return _ratio(inner(x, y), inner(x, x), inner(y, y))


def rbf_cka(
    x: Either, y: Either, *, width: float = 1.0, debiased: bool = False, dtype: DTypeLike = np.float64
) -> float:
    """CKA with Gaussian kernels exp(-d^2 / (2 s^2)).

    s is `width` times the median Euclidean distance d over all pairs of a side's points (Kornblith et al. 2019,
    section 3). If more than half of the pairs coincide, it is the median over the other pairs. Memory grows with the
    square of the number of points. Arguments and result as in `linear_cka`.

    Raises:
        InnerloopError: as for `linear_cka`, and if `width` is not a number above 0.
    """
    check_argument("CKA", "width", width, POSITIVE)
    check_flag("CKA", "debiased", debiased)
    x, y = pair(x, y, "CKA", dtype)
    k, m = _gaussian(x, width), _gaussian(y, width)
    if debiased:
        _check_four(len(x))
        return _ratio(_hsic1(k, m), _hsic1(k, k), _hsic1(m, m))
    k, m = _centred_kernel(k), _centred_kernel(m)
    return _ratio(*(float(np.sum(a * b)) for a, b in ((k, m), (k, k), (m, m))))


def _ratio(xy: float, xx: float, yy: float) -> float:
    """CKA from HSIC values; NaN if a side has no variance."""
    return float(xy / np.sqrt(xx * yy)) if xx > 0 and yy > 0 else float("nan")


def _linear_hsic(x: Points, y: Others) -> float:
    """tr(XX^T YY^T) = ||X^T Y||^2 for centred activations."""
    wide = x.shape[1] * y.shape[1] > len(x) ** 2
    return float(np.sum((x @ x.T) * (y @ y.T))) if wide else float(np.sum((x.T @ y) ** 2))


def _linear_hsic1(x: Points, y: Others) -> float:
    """HSIC_1 of linear kernels without forming them, up to the factor 1 / (n (n-3))."""
    n = len(x)
    dx, dy = np.sum(x * x, 1), np.sum(y * y, 1)  # the diagonals
    rows_x, rows_y = x @ x.sum(0) - dx, y @ y.sum(0) - dy  # K~ 1
    trace = _linear_hsic(x, y) - float(dx @ dy)
    both = float(rows_x.sum() * rows_y.sum()) / ((n - 1) * (n - 2))
    return trace + both - 2 * float(rows_x @ rows_y) / (n - 2)


def _hsic1(k: Kernel, m: Kernel) -> float:
    """HSIC_1 of kernel matrices, up to the factor 1 / (n (n-3))."""
    n = len(k)
    k, m = k - np.diag(np.diag(k)), m - np.diag(np.diag(m))
    both = float(k.sum() * m.sum()) / ((n - 1) * (n - 2))
    return float(np.sum(k * m)) + both - 2 * float(k.sum(0) @ m.sum(0)) / (n - 2)


def _centred_kernel(k: Kernel) -> Kernel:
    """H K H."""
    rows = k.mean(0)
    return k - rows[None] - rows[:, None] + rows.mean()


def _gaussian(x: Points, width: float) -> Kernel:
    """Gaussian kernel matrix, with distances in units of their median over pairs of points."""
    x = centred(x)  # smaller numbers: computing squared distances from products loses fewer digits
    norms = np.sum(x * x, 1)
    both = norms[:, None] + norms[None]
    squared = both - 2 * x @ x.T
    squared[squared <= 8 * np.finfo(x.dtype).eps * both] = 0.0  # within rounding error, the two coincide
    return np.exp(-squared / (2 * (width * _median(np.sqrt(squared))) ** 2))


def _median(distances: Kernel) -> float:
    """The median distance over pairs of points; over distinct points only if more than half of the pairs coincide."""
    pairs = distances[np.triu_indices(len(distances), 1)]
    apart = pairs[pairs > 0]  # few in a layer whose units are mostly inactive
    return float(np.median(pairs)) or (float(np.median(apart)) if apart.size else 1.0)


def _check_four(points: int) -> None:
    """Raise InnerloopError if HSIC_1 is undefined."""
    if points < 4:
        raise InnerloopError("CKA", "debiased CKA needs at least four points", got=points)
