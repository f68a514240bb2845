"""Sums over the places of a channel as a GPU has them: those of NumPy, in every order of derivative, for any data."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numeric_cases import normal

from innerloop.nn.kernels.channel_sums import channel_mean, channel_moments, spread
from innerloop.nn.layers import BatchNorm, ConvBlock

X = np.random.default_rng(3).normal(size=(4, 5, 3, 2))


@pytest.fixture(autouse=True)
def on_a_gpu(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")


def test_values():
    mean, variance = channel_moments(jnp.asarray(X))
    np.testing.assert_allclose(channel_mean(jnp.asarray(X)), X.mean((0, 1, 2)), rtol=1e-12)
    np.testing.assert_allclose(mean, X.mean((0, 1, 2)), rtol=1e-12)
    np.testing.assert_allclose(variance, X.var((0, 1, 2)), rtol=1e-12)
    np.testing.assert_array_equal(
        spread(jnp.arange(2.0), jnp.asarray(X)), np.broadcast_to(np.arange(2.0), X.shape)
    )


def test_derivatives_of_three_orders_under_vmap():
    """Of a function of both moments and of a product with a spread vector, against the plain operations."""
    v, along = normal(4)(2), normal(5)(4, 5, 3, 2)
    plain_moments = lambda x: (x.mean((0, 1, 2)), x.var((0, 1, 2)))
    plain_spread = lambda v, like: jnp.broadcast_to(v, like.shape)

    def orders(moments, spread) -> list:
        def curved(x, v):
            mean, variance = moments(x)
            return jnp.sum(jnp.tanh((x - spread(mean, x)) * spread(v / jnp.sqrt(variance + 0.1), x)))

        first = jax.grad(curved, (0, 1))
        second = jax.grad(lambda x, v: jnp.vdot(first(x, v)[0], along), (0, 1))
        third = jax.grad(lambda x, v: sum(jnp.sum(jnp.sin(a)) for a in second(x, v)), (0, 1))
        each = jax.vmap(lambda scale: [f(scale * X, v) for f in (curved, first, second, third)])
        return each(jnp.array([1.0, 2.0, 0.5]))

    ours, plain = jax.jit(lambda: (orders(channel_moments, spread), orders(plain_moments, plain_spread)))()
    for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(plain), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-10)
        assert np.abs(b).max() > 1e-3


@pytest.mark.parametrize("far", [0.0, 1e3, 1e5])
def test_a_first_example_like_no_other_costs_few_digits(far: float):
    """Rounding grows by no more than the number of examples, wherever the first one lies."""
    x = np.random.default_rng(0).normal(size=(64, 8, 8, 1)).astype(np.float32) + np.float32(7.0)
    x[0] += np.float32(far)
    mean, variance = channel_moments(jnp.asarray(x))
    np.testing.assert_allclose(mean, x.astype(np.float64).mean((0, 1, 2)), rtol=64 * 6e-8)
    np.testing.assert_allclose(variance, x.astype(np.float64).var((0, 1, 2)), rtol=64 * 6e-8 * 4)


def test_layers_are_those_of_a_cpu(monkeypatch: pytest.MonkeyPatch):
    wide = lambda tree: jax.tree.map(lambda x: x.astype(jnp.float64), tree)
    norm, block = wide((BatchNorm(2), ConvBlock(2, 3, stride=1, key=jax.random.key(0))))
    images = jnp.asarray(normal(6)(3, 16, 16, 2))
    both = lambda: jax.tree.leaves(
        (
            norm(jnp.asarray(X), 2),
            jax.grad(lambda b: jnp.sum(jnp.sin(b(images)) ** 2))(block),
            norm(jnp.asarray(X[:, 0, 0])),
        )
    )
    found = both()
    monkeypatch.setattr(jax, "default_backend", lambda: "cpu")
    for a, b in zip(found, both(), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-10)
