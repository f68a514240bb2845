"""CCA, SVCCA and PWCCA: closed forms, invariances, few points, dead neurons, an independent implementation."""

import jax.numpy as jnp
import numpy as np
import pytest

from innerloop.analysis import canonical_correlations, linear_cka, mean_cca, pwcca, rbf_cka, svcca
from innerloop.errors import InnerloopError

RNG = np.random.default_rng(0)
X = RNG.normal(size=(200, 6)) @ RNG.normal(size=(6, 6))
Y = 0.7 * X[:, :4] @ RNG.normal(size=(4, 4)) + RNG.normal(size=(200, 4))


def orthogonal(size: int) -> np.ndarray:
    return np.linalg.qr(np.random.default_rng(size).normal(size=(size, size)))[0]


def test_cca_matches_statsmodels():
    cancorr = pytest.importorskip("statsmodels.multivariate.cancorr")
    independent = cancorr.CanCorr(Y, X).cancorr
    assert canonical_correlations(X, Y).rho == pytest.approx(independent, abs=1e-10)
    assert mean_cca(X, Y) == pytest.approx(independent.mean(), abs=1e-10)


def test_single_neuron_cca_is_absolute_correlation():
    """One neuron on each side: CCA is the size of the ordinary correlation, here 3 / sqrt(2 * 6)."""
    x, y = np.array([[-1.0], [0], [1]]), np.array([[-1.0], [-1], [2]])
    assert canonical_correlations(x, y).rho == pytest.approx([3 / np.sqrt(12)])
    assert mean_cca(x, -y) == pytest.approx(3 / np.sqrt(12))


def test_closed_form_of_two_planes():
    """Planes that share one direction and meet at an angle in the other: rho = 1 and the angle's cosine."""
    q = orthogonal(8)
    q = np.linalg.qr(np.column_stack([np.ones(8), q[:, :7]]))[0][:, 1:]  # orthogonal to the constant
    x = q[:, [0, 1]]
    y = np.column_stack([q[:, 0], np.cos(1.1) * q[:, 1] + np.sin(1.1) * q[:, 2]])
    assert canonical_correlations(x, y).rho == pytest.approx([1, np.cos(1.1)])
    # PWCCA: x's own columns are the canonical directions, each accounted for once
    assert pwcca(x, y) == pytest.approx((1 + np.cos(1.1)) / 2)
    assert pwcca(x * [3, 1], y) == pytest.approx((3 + np.cos(1.1)) / 4)


def test_invariances():
    invertible = RNG.normal(size=(6, 6)) + 3 * np.eye(6)
    for changed in (X @ orthogonal(6), 7 * X, X + 5, X @ invertible):
        assert mean_cca(changed, Y) == pytest.approx(mean_cca(X, Y))
    assert svcca(X @ orthogonal(6), 3 * Y @ orthogonal(4)) == pytest.approx(svcca(X, Y))
    assert pwcca(5 * X, Y @ invertible[:4, :4]) == pytest.approx(pwcca(X, Y))
    assert pwcca(X, X) == pytest.approx(svcca(X, X), abs=1e-12) == pytest.approx(1)
    assert mean_cca(X, Y) == pytest.approx(mean_cca(Y, X))


def test_svcca_drops_small_directions():
    """Large shared directions and small private noise: SVCCA sees the shared ones, mean CCA counts all alike."""
    signal = RNG.normal(size=(3000, 2)) * 100
    x = np.column_stack([signal, RNG.normal(size=(3000, 4))])
    y = np.column_stack([signal, RNG.normal(size=(3000, 4))])
    assert svcca(x, y) == pytest.approx(1, abs=1e-3)
    assert mean_cca(x, y) == pytest.approx(2 / 6, abs=0.03)


def test_independent_gaussians_have_low_correlation():
    """For p = q neurons and n points the largest is near sqrt(4 p / n (1 - p / n)) (Wachter), and the mean lower."""
    rho = canonical_correlations(RNG.normal(size=(4000, 5)), RNG.normal(size=(4000, 5))).rho
    assert rho.max() < 1.2 * np.sqrt(4 * 5 / 4000)


def test_dead_and_repeated_neurons_change_nothing():
    dead = np.column_stack([X, np.zeros(200), np.full(200, 0.1), X[:, 0] + X[:, 1]])
    assert canonical_correlations(dead, Y).rho == pytest.approx(canonical_correlations(X, Y).rho)
    single = dead.astype(np.float32)
    assert mean_cca(single, Y.astype(np.float32)) == pytest.approx(mean_cca(X, Y), abs=1e-4)
    assert np.isnan(mean_cca(np.full((200, 3), 0.1), Y))
    assert np.isnan(pwcca(np.full((200, 3), 0.1), Y))


def test_cca_handles_ill_conditioned_activations():
    stretched = X * np.geomspace(1, 1e-6, 6)
    assert mean_cca(stretched, Y) == pytest.approx(mean_cca(X, Y), abs=1e-9)
    assert mean_cca(X, Y, dtype=np.float32) == pytest.approx(mean_cca(X, Y), abs=1e-4)


@pytest.mark.parametrize("dtype", [jnp.bfloat16, np.float16, np.float32, np.float64])
def test_cca_rank_ignores_rounding_errors(dtype):
    """Three directions in eight neurons, whatever the precision in which they were rounded."""
    x = (RNG.normal(size=(200, 3)) @ RNG.normal(size=(3, 8))).astype(dtype)
    assert len(canonical_correlations(x, RNG.normal(size=(200, 8))).rho) == 3


@pytest.mark.parametrize("measure", [mean_cca, svcca, pwcca, linear_cka, rbf_cka])
@pytest.mark.parametrize("scale", [1e-200, 1e-170, 1e200])
def test_scale_changes_nothing(measure, scale):
    assert measure(scale * X, Y) == pytest.approx(measure(X, Y))
    assert measure(scale * X, Y, dtype=np.float32) == pytest.approx(measure(X, Y), abs=1e-4)
    assert measure(np.column_stack([np.ones(200), 1e-170 * X]), Y) == pytest.approx(measure(X, Y))


def test_forced_correlations_are_counted():
    x, y = RNG.normal(size=(10, 30)), RNG.normal(size=(10, 4))
    found = canonical_correlations(x, y)
    assert found.forced == 4  # 9 + 4 - 9: every one of them
    assert found.rho == pytest.approx(np.ones(4))
    half = canonical_correlations(RNG.normal(size=(10, 6)), RNG.normal(size=(10, 5)))
    assert half.forced == 2
    assert half.rho[:2] == pytest.approx([1, 1])
    assert half.rho[2] < 1 - 1e-6
    assert canonical_correlations(X, Y).forced == 0


def test_cca_treats_pixels_as_points():
    images = RNG.normal(size=(20, 5, 5, 6))
    other = RNG.normal(size=(20, 5, 5, 3)) + images[..., :3]
    assert mean_cca(images, other) == pytest.approx(mean_cca(images.reshape(-1, 6), other.reshape(-1, 3)))


def test_invalid_inputs_are_rejected():
    with pytest.raises(InnerloopError, match="CCA: both sides need the same number of points, got 200"):
        mean_cca(X, Y[1:])
    with pytest.raises(InnerloopError, match="at least three points"):
        mean_cca(X[:2], Y[:2])
    with pytest.raises(InnerloopError, match="must be finite"):
        pwcca(X * np.nan, Y)
    with pytest.raises(InnerloopError, match="`variance` must be above 0, got 0.0"):
        svcca(X, Y, variance=0.0)
    for tolerance, wrong in (
        (-1.0, "0 or more, got -1.0"),
        (2.0, "1 or less, got 2.0"),
        (np.nan, "a finite number"),
    ):
        with pytest.raises(InnerloopError, match=f"`tolerance` must be {wrong}"):
            canonical_correlations(X, Y, tolerance=tolerance)
    with pytest.raises(
        InnerloopError, match="`dtype` is unknown, got <class 'int'>; choose among: float32, float64"
    ):
        mean_cca(X, Y, dtype=int)
    for odd, got in ((X + 1j, "complex128"), (X.astype(str), "<U32")):
        with pytest.raises(InnerloopError, match=f"CCA: activations must be real numbers, got {got}"):
            mean_cca(odd, Y)
    with pytest.raises(InnerloopError, match=r"must be \[examples, ..., neurons\], got shape \(200, 0\)"):
        mean_cca(X[:, :0], Y)
