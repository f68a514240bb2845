"""Returns, advantages and the baseline against numbers by hand and NumPy's own least squares."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from innerloop.rl.advantages import discounted_returns, generalised_advantages, normalised_advantages
from innerloop.rl.baseline import _features, linear_baseline
from innerloop.rl.distributions import Normal
from innerloop.rl.rollout import Trajectories
from innerloop.rl.sample_processor import SampleProcessor

REWARDS = jnp.array([[1.0, 2.0, 4.0], [3.0, 0.0, 0.0]])
MASK = jnp.array([[1.0, 1.0, 1.0], [1.0, 0.0, 0.0]])
VALUES = jnp.array([[10.0, 20.0, 30.0], [5.0, 7.0, 7.0]])


def test_returns_by_hand():
    np.testing.assert_allclose(discounted_returns(REWARDS, 0.5), [[3.0, 4.0, 4.0], [3.0, 0.0, 0.0]])


ENDS = jnp.array([[1.0, 0.0, 1.0], [0.0, 0.0, 0.0]])


def test_consecutive_trajectories_in_a_lane_by_hand():
    """One of one step and one of two, each by itself; nothing of the second is worth anything to the first."""
    np.testing.assert_allclose(discounted_returns(REWARDS, 0.5, ENDS), [[1.0, 4.0, 4.0], [3.0, 0.0, 0.0]])
    apart = generalised_advantages(REWARDS, VALUES, MASK, discount=0.5, gae_lambda=0.5, ends=ENDS)
    np.testing.assert_allclose(apart, [[-9.0, -9.5, -26.0], [-2.0, 0.0, 0.0]])


def test_gae_lambda_1_is_return_minus_value():
    found = generalised_advantages(REWARDS, VALUES, MASK, discount=0.5, gae_lambda=1.0)
    np.testing.assert_allclose(found, [[-7.0, -16.0, -26.0], [-2.0, 0.0, 0.0]])


def test_gae_lambda_0_is_one_step_td_error():
    """1 + 10 - 10, 2 + 15 - 20, 4 - 30; the value after the end is nothing."""
    found = generalised_advantages(REWARDS, VALUES, MASK, discount=0.5, gae_lambda=0.0)
    np.testing.assert_allclose(found, [[1.0, -3.0, -26.0], [-2.0, 0.0, 0.0]])


def test_gae_lambda_between_0_and_1_by_hand():
    """gamma lambda = 0.25: -26, -3 - 6.5, 1 - 2.375."""
    found = generalised_advantages(REWARDS, VALUES, MASK, discount=0.5, gae_lambda=0.5)
    np.testing.assert_allclose(found, [[-1.375, -9.5, -26.0], [-2.0, 0.0, 0.0]])


def test_normalised_advantages_use_only_unmasked_steps():
    found = np.asarray(normalised_advantages(REWARDS, MASK))
    taken = found[MASK > 0]
    np.testing.assert_allclose([taken.mean(), taken.std()], [0.0, 1.0], atol=1e-6)
    assert not found[1, 1:].any()


@pytest.mark.parametrize("value", [0.1, -100.3, 1e4 / 3])
def test_equal_advantages_normalise_to_zero_in_float32(value: float):
    """Whose mean is not exact: for 0.1 it would be off by as much as the standard deviation."""
    np.testing.assert_array_equal(normalised_advantages(jnp.full((7, 13), value), jnp.ones((7, 13))), 0)


@pytest.mark.parametrize("reward", [-1.0, 3e4])
def test_advantages_are_zero_if_baseline_explains_rewards(reward: float):
    """One step with the same reward in all trajectories: the fitted values are off by rounding."""
    seen = jax.random.normal(jax.random.key(1), (20, 1, 2))
    t = Trajectories(seen, Normal(seen, seen), seen, jnp.full((20, 1), reward), jnp.ones((20, 1)))
    assert np.abs(SampleProcessor(normalize=False)(t).advantages).max() > 0
    np.testing.assert_array_equal(SampleProcessor()(t).advantages, 0)


@pytest.mark.parametrize("offset", [0.0, 100.0])
def test_small_advantages_are_still_normalised(offset: float):
    """A hundredth of a percent of the returns is no rounding."""
    small = 0.01 * REWARDS
    found = normalised_advantages(small, MASK, small + offset)
    np.testing.assert_array_equal(found, normalised_advantages(small, MASK))
    np.testing.assert_allclose(found[MASK > 0].std(), 1, rtol=1e-5)


@pytest.mark.parametrize("x64", [False, True])
def test_linear_baseline_matches_numpy_ridge_regression(x64: bool):
    """In float32 as well, where the normal equations would lose it."""
    rng = np.random.default_rng(0)
    seen = 12 * rng.normal(size=(5, 100, 2)).cumsum(1) / 10
    mask = (np.arange(100) < rng.integers(40, 101, (5, 1))).astype(float)
    returns = (seen.sum(-1) ** 2 + np.arange(100) ** 1.5) * mask
    with jax.enable_x64(x64):
        found = linear_baseline(jnp.array(seen), jnp.array(returns), jnp.array(mask))
        found = np.asarray(found, np.float64)
        phi = np.asarray(_features(jnp.array(seen)), np.float64)
    rows = (phi * mask[..., None]).reshape(-1, phi.shape[-1])
    w = np.linalg.solve(rows.T @ rows + 1e-5 * np.eye(rows.shape[1]), rows.T @ (returns * mask).ravel())
    wanted = (phi @ w) * mask
    scale = np.abs(wanted).max()
    np.testing.assert_allclose(found * mask, wanted, atol=scale * (1e-10 if x64 else 1e-4))


def test_baseline_features_by_hand():
    seen = jnp.array([[[2.0], [-20.0]]])
    np.testing.assert_allclose(
        _features(seen)[0], [[2, 4, 0, 0, 0, 1], [-10, 100, 0.01, 1e-4, 1e-6, 1]], rtol=1e-6
    )
