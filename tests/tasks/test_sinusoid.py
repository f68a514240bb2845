"""Sinusoids of both protocols."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from innerloop.engine.types import Task
from innerloop.errors import InnerloopError
from innerloop.tasks.sinusoid import Sinusoid

TASKS = 3000


def waves(distribution: Sinusoid) -> Task:
    return jax.jit(jax.vmap(distribution.sample))(jax.random.split(jax.random.key(0), TASKS))


def moments(x: np.ndarray, low: float, high: float) -> None:
    """Mean and deviation of a uniform variable, within 4 standard errors of the sample."""
    n, width = x.size, high - low
    assert low <= x.min() < low + 0.02 * width
    assert high - 0.02 * width < x.max() <= high
    assert abs(x.mean() - (low + high) / 2) < 4 * width / np.sqrt(12 * n)
    # the variance of (x - mean)^2 for a uniform variable is width^4 / 180
    assert abs(x.var() - width**2 / 12) < 4 * width**2 / np.sqrt(180 * n)


@pytest.mark.parametrize(("protocol", "top", "sign"), [("maml", np.pi, -1), ("reptile", 2 * np.pi, 1)])
def test_wave_parameters_and_oracle_inputs(protocol, top: float, sign: int):
    """y = A sin(x -+ phase) with A in [0.1, 5]; the oracle's inputs say A and phase, the same for both sets."""
    task = waves(Sinusoid(4, 6, protocol=protocol, oracle=True))
    x, amplitude, phase = np.moveaxis(np.asarray(task.support.inputs), -1, 0)
    np.testing.assert_allclose(
        task.support.targets[..., 0], amplitude * np.sin(x + sign * phase), rtol=1e-4, atol=1e-4
    )
    moments(amplitude[:, 0], 0.1, 5.0)
    moments(phase[:, 0], 0.0, top)
    assert np.ptp(amplitude, axis=1).max() == 0
    np.testing.assert_array_equal(task.query.inputs[:, 0, 1:], task.support.inputs[:, 0, 1:])


def test_maml_points_are_uniform_and_independent():
    """Drawn anew for every example: support and query points are uniform and differ."""
    task = waves(Sinusoid(4, 6))
    assert task.support.inputs.shape == task.support.targets.shape == (TASKS, 4, 1)
    assert task.query.inputs.shape == (TASKS, 6, 1)
    moments(np.asarray(task.support.inputs), -5, 5)
    moments(np.asarray(task.query.inputs), -5, 5)
    assert not np.isin(task.support.inputs, task.query.inputs).all()
    bound = 4 / np.sqrt(TASKS)  # four standard errors of a correlation
    pairs = np.corrcoef(np.asarray(task.support.inputs)[..., 0].T)
    assert np.abs(pairs - np.eye(4)).max() < bound


def test_reptile_points_lie_on_grid():
    """Training sees all 50 points in random order, a test 10 of them with replacement; the error is on all."""
    grid = np.linspace(-5, 5, 50, dtype=np.float32)
    train, test = waves(Sinusoid(50, 1, protocol="reptile")), waves(Sinusoid(10, 1, protocol="reptile"))
    np.testing.assert_allclose(
        np.sort(train.support.inputs[..., 0], axis=1), np.tile(grid, (TASKS, 1)), atol=1e-6
    )
    assert len(np.unique(np.asarray(train.support.inputs[:, 0, 0]).round(4))) == 50
    np.testing.assert_allclose(test.query.inputs[0, :, 0], grid, atol=1e-6)
    points = np.asarray(test.support.inputs[..., 0])
    assert points.shape == (TASKS, 10)
    assert np.isin(points, np.asarray(test.query.inputs[0, :, 0])).all()
    repeats = np.mean([len(np.unique(row)) < 10 for row in points])
    expected = 1 - np.prod(1 - np.arange(10) / 50)
    assert abs(repeats - expected) < 4 * np.sqrt(expected * (1 - expected) / TASKS)


def test_sample_is_determined_by_key():
    """The same key, the same task; no oracle, one input."""
    one, again = (Sinusoid(2, 2).sample(jax.random.key(5)) for _ in range(2))
    jax.tree.map(np.testing.assert_array_equal, one, again)
    assert one.support.inputs.shape == (2, 1)
    assert not jnp.array_equal(one.support.inputs, Sinusoid(2, 2).sample(jax.random.key(6)).support.inputs)


@pytest.mark.parametrize(
    ("shots", "queries", "message"),
    [
        (0, 1, "`shots` must be 1 or more, got 0"),
        (1, 0, "`queries` must be 1 or more, got 0"),
        (-1, 5, "`shots` must be 1 or more, got -1"),
    ],
)
def test_invalid_shots_and_queries_raise(shots: int, queries: int, message: str):
    with pytest.raises(InnerloopError, match=message):
        Sinusoid(shots, queries)
