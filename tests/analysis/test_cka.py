"""CKA: definitions with explicit kernel matrices, closed forms, invariances, independent implementations."""

import numpy as np
import pytest

from innerloop.analysis import linear_cka, rbf_cka
from innerloop.analysis.activations import as_points
from innerloop.errors import InnerloopError

RNG = np.random.default_rng(1)
X = RNG.normal(size=(40, 6))
Y = X[:, :4] + RNG.normal(size=(40, 4))


def by_definition(k: np.ndarray, m: np.ndarray) -> float:
    n = len(k)
    h = np.eye(n) - 1 / n
    hsic = lambda a, b: np.trace(a @ h @ b @ h)
    return hsic(k, m) / np.sqrt(hsic(k, k) * hsic(m, m))


def debiased_by_definition(k: np.ndarray, m: np.ndarray) -> float:
    """Song et al. 2012, equation 5, term by term."""
    n, one = len(k), np.ones(len(k))

    def hsic(a, b):
        a, b = a - np.diag(np.diag(a)), b - np.diag(np.diag(b))
        both = (one @ a @ one) * (one @ b @ one) / ((n - 1) * (n - 2))
        return (np.trace(a @ b) + both - 2 / (n - 2) * one @ a @ b @ one) / (n * (n - 3))

    return hsic(k, m) / np.sqrt(hsic(k, k) * hsic(m, m))


def squared_distances(x: np.ndarray) -> np.ndarray:
    return ((x[:, None] - x[None]) ** 2).sum(-1)


@pytest.mark.parametrize("neurons", [6, 90])
def test_cka_matches_definition(neurons):
    x = RNG.normal(size=(40, neurons))
    k, m = x @ x.T, Y @ Y.T
    assert linear_cka(x, Y) == pytest.approx(by_definition(k, m))
    assert linear_cka(x, Y, debiased=True) == pytest.approx(debiased_by_definition(k, m))
    kernels = []
    for side in (x, Y):
        d = squared_distances(side)
        kernels.append(np.exp(-d / (2 * (0.8 * np.median(np.sqrt(d[np.triu_indices(40, 1)]))) ** 2)))
    assert rbf_cka(x, Y, width=0.8) == pytest.approx(by_definition(*kernels))
    assert rbf_cka(x, Y, width=0.8, debiased=True) == pytest.approx(debiased_by_definition(*kernels))


@pytest.mark.parametrize("debiased", [False, True])
def test_linear_cka_centres_wide_activations(debiased):
    """More neurons than points on both sides, far from their means: kernels are formed, of centred activations."""
    x, y = RNG.normal(size=(12, 40)) + 3, RNG.normal(size=(12, 50)) ** 2 + 5
    centre = lambda a: a - a.mean(0)
    k, m = centre(x) @ centre(x).T, centre(y) @ centre(y).T
    expected = debiased_by_definition if debiased else by_definition
    assert linear_cka(x, y, debiased=debiased) == pytest.approx(expected(k, m), abs=1e-12)
    assert linear_cka(y, x, debiased=debiased) == pytest.approx(expected(k, m), abs=1e-12)


@pytest.mark.parametrize("width", [0.3, 1.0, 2.5])
def test_rbf_width_scales_median_distance(width):
    """Distances and their median by SciPy, kernels by scikit-learn. Of 1, 2, 3, 6, 8, 9 it is 4.5, not sqrt(45 / 2)."""
    spatial, pairwise = pytest.importorskip("scipy.spatial"), pytest.importorskip("sklearn.metrics.pairwise")
    x, y = np.array([[0.0], [1.0], [9.0], [3.0]]), np.array([[0.0, 1], [2, 2], [5, 1], [1, 1]])
    assert sorted(spatial.distance.pdist(x)) == [1, 2, 3, 6, 8, 9]
    kernels = []
    for side in (x, y):
        s = width * np.median(spatial.distance.pdist(side))
        kernels.append(pairwise.rbf_kernel(side, gamma=1 / (2 * s**2)))
    assert rbf_cka(x, y, width=width) == pytest.approx(by_definition(*kernels), rel=1e-12)


@pytest.mark.parametrize(("neurons", "different"), [(6, 5), (300, 5), (6, 30)])
@pytest.mark.parametrize("seed", range(6))
def test_rbf_width_is_defined_for_coincident_points(neurons, different, seed):
    """Five different points among forty: the median distance of all pairs is zero, and that of those apart counts.

    Thirty of forty: most pairs are apart, and the median is that of all.
    """
    spatial, rng = pytest.importorskip("scipy.spatial"), np.random.default_rng(seed)
    x = np.where(np.arange(40)[:, None] < different, rng.normal(size=(40, neurons)), rng.normal(size=neurons))
    x = x + 3
    d = spatial.distance.squareform(spatial.distance.pdist(x))
    pairs = d[np.triu_indices(40, 1)]
    s = np.median(pairs if different > 20 else pairs[pairs > 0])
    own, other = np.exp(-(d**2) / (2 * s**2)), squared_distances(Y)
    other = np.exp(-other / (2 * np.median(np.sqrt(other[np.triu_indices(40, 1)])) ** 2))
    assert rbf_cka(x, Y) == pytest.approx(by_definition(own, other), rel=1e-9)


def test_cka_matches_independent_implementations():
    """Centring and kernels of scikit-learn; U-centred products of dcor (Szekely and Rizzo) for the debiased one."""
    preprocessing = pytest.importorskip("sklearn.preprocessing")
    centre = lambda k: preprocessing.KernelCenterer().fit_transform(k)
    k, m = centre(X @ X.T), centre(Y @ Y.T)
    expected = np.sum(k * m) / np.linalg.norm(k) / np.linalg.norm(m)
    assert linear_cka(X, Y) == pytest.approx(expected, abs=1e-12)
    dcor = pytest.importorskip("dcor")
    product = lambda a, b: dcor.u_product(dcor.u_centered(a), dcor.u_centered(b))
    blank = lambda x: x @ x.T - np.diag(np.diag(x @ x.T))
    k, m = blank(X - X.mean(0)), blank(Y - Y.mean(0))
    expected = product(k, m) / np.sqrt(product(k, k) * product(m, m))
    assert linear_cka(X, Y, debiased=True) == pytest.approx(expected, abs=1e-12)


def test_single_neuron_cka_is_squared_correlation():
    """Linear CKA of single neurons is their squared correlation: (3 / sqrt(2 * 6))^2."""
    x, y = np.array([[-1.0], [0], [1]]), np.array([[-1.0], [-1], [2]])
    assert linear_cka(x, y) == pytest.approx(9 / 12)


def test_linear_cka_matches_closed_form():
    """X of orthonormal columns a, b and Y of a alone: ||X^T Y||^2 / (||X^T X|| ||Y^T Y||) = 1 / sqrt(2)."""
    q = np.linalg.qr(np.column_stack([np.ones(9), RNG.normal(size=(9, 2))]))[0][:, 1:]
    assert linear_cka(q, q[:, :1]) == pytest.approx(1 / np.sqrt(2))


def test_invariances():
    turn = np.linalg.qr(RNG.normal(size=(6, 6)))[0]
    for debiased in (False, True):
        for measure in (linear_cka, rbf_cka):
            base = measure(X, Y, debiased=debiased)
            assert measure(9 * X @ turn + 4, Y, debiased=debiased) == pytest.approx(base)
            assert measure(Y, X, debiased=debiased) == pytest.approx(base)
            assert measure(X, X, debiased=debiased) == pytest.approx(1)
    stretch = np.diag([10, 1, 1, 1, 1, 0.1])
    assert (
        abs(linear_cka(X @ stretch, Y) - linear_cka(X, Y)) > 0.05
    )  # not to every invertible map, unlike CCA


def test_debiased_cka_of_independent_activations_is_near_zero():
    x, y = RNG.normal(size=(30, 500)), RNG.normal(size=(30, 500))
    assert linear_cka(x, y) > 0.8
    assert abs(linear_cka(x, y, debiased=True)) < 0.1


def test_cka_handles_extreme_activations():
    tiny = X * 1e-30
    assert linear_cka(tiny, Y) == pytest.approx(linear_cka(X, Y))
    assert linear_cka(X.astype(np.float32) * 1e30, Y, dtype=np.float32) == pytest.approx(
        linear_cka(X, Y), abs=1e-4
    )
    constant = np.full((40, 3), 0.1)
    assert np.isnan(linear_cka(constant, Y))
    assert np.isnan(rbf_cka(constant, Y))
    mostly_off = np.where(np.arange(40)[:, None] < 5, X, 0.0)
    assert 0 < rbf_cka(mostly_off, mostly_off + 0.01 * X) <= 1


def test_as_points_reshapes_activations():
    images = RNG.normal(size=(4, 3, 2, 5))
    assert as_points(images).shape == (24, 5)
    assert as_points(images, "flatten").shape == (4, 30)
    assert np.array_equal(as_points(images)[7], images[1, 0, 1])
    with pytest.raises(InnerloopError, match=r"must be \[examples, ..., neurons\], got shape \(4,\)"):
        as_points(np.ones(4))


def test_invalid_inputs_are_rejected():
    with pytest.raises(InnerloopError, match="`width` must be above 0, got 0.0"):
        rbf_cka(X, Y, width=0.0)
    with pytest.raises(InnerloopError, match="`width` must be a finite number, got inf"):
        rbf_cka(X, Y, width=np.inf)
    for measure in (linear_cka, rbf_cka):
        with pytest.raises(InnerloopError, match="debiased CKA needs at least four points, got 3"):
            measure(X[:3], Y[:3], debiased=True)
    with pytest.raises(InnerloopError, match="at least three points"):
        linear_cka(X[:2], Y[:2])
