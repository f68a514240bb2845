"""Sine and cosine in float32 against NumPy in float64; their derivatives against each other."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from innerloop.nn.sine import cos, sin

PAIRS = [(sin, np.sin), (cos, np.cos)]


@pytest.mark.parametrize(("ours", "exact"), PAIRS)
@pytest.mark.parametrize(("largest", "error"), [(1.0, 1.3e-7), (1e4, 1.3e-7), (1e5, 1e-6)])
def test_sine_and_cosine_match_numpy(ours, exact, largest, error):
    x = np.linspace(-largest, largest, 100_001, dtype=np.float32)
    np.testing.assert_allclose(jax.jit(ours)(x), exact(x.astype(np.float64)), rtol=0, atol=error)


@pytest.mark.parametrize(("ours", "exact"), PAIRS)
def test_sine_and_cosine_of_special_arguments(ours, exact):
    x = jnp.asarray([0.0, np.pi / 2, np.pi, -np.pi], jnp.float32)
    np.testing.assert_allclose(ours(x), exact(np.asarray(x, np.float64)), rtol=0, atol=1e-7)
    beyond = jnp.asarray([1.1e5, -1e12, np.inf, -np.inf, np.nan], jnp.float32)
    assert bool(jnp.isnan(ours(beyond)).all())


@pytest.mark.parametrize(("ours", "exact"), [(sin, jnp.sin), (cos, jnp.cos)])
def test_four_derivative_orders_match_jax(ours, exact):
    x = jnp.linspace(-20, 20, 101, dtype=jnp.float32)
    for _ in range(4):
        ours, exact = (jax.grad(lambda x, f=f: f(x).sum()) for f in (ours, exact))
        np.testing.assert_allclose(ours(x), exact(x), rtol=0, atol=3e-7)


@pytest.mark.parametrize(("ours", "exact"), [(sin, jnp.sin), (cos, jnp.cos)])
@pytest.mark.parametrize("dtype", ["float64", "bfloat16"])
def test_other_dtypes_match_jax(ours, exact, dtype):
    with jax.enable_x64(True):
        x = jnp.linspace(-1e6, 1e6, 101, dtype=dtype)
        np.testing.assert_array_equal(ours(x), exact(x))
