"""Sums over the places of a channel as a GPU has them: those of NumPy, in every order of derivative, for any data."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P
from numeric_cases import normal

from innerloop.nn.kernels.channel_sums import channel_mean, channel_moments, channel_scale, spread
from innerloop.nn.layers import BatchNorm, ConvBlock

X = np.random.default_rng(3).normal(size=(4, 5, 3, 2))


@pytest.fixture(autouse=True)
def on_a_gpu(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")


def test_channel_moments_match_numpy():
    mean, variance = channel_moments(jnp.asarray(X))
    np.testing.assert_allclose(channel_mean(jnp.asarray(X)), X.mean((0, 1, 2)), rtol=1e-12)
    np.testing.assert_allclose(mean, X.mean((0, 1, 2)), rtol=1e-12)
    np.testing.assert_allclose(variance, X.var((0, 1, 2)), rtol=1e-12)
    np.testing.assert_array_equal(
        spread(jnp.arange(2.0), jnp.asarray(X)), np.broadcast_to(np.arange(2.0), X.shape)
    )


def test_channel_moments_three_derivative_orders_under_vmap():
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
def test_channel_moments_are_accurate_with_outlier_first_example(far: float):
    """Rounding grows by no more than the number of examples, wherever the first one lies."""
    x = np.random.default_rng(0).normal(size=(64, 8, 8, 1)).astype(np.float32) + np.float32(7.0)
    x[0] += np.float32(far)
    mean, variance = channel_moments(jnp.asarray(x))
    np.testing.assert_allclose(mean, x.astype(np.float64).mean((0, 1, 2)), rtol=64 * 6e-8)
    np.testing.assert_allclose(variance, x.astype(np.float64).var((0, 1, 2)), rtol=64 * 6e-8 * 4)


@pytest.mark.parametrize("backend", ["cpu", "gpu"])
@pytest.mark.parametrize(
    ("inputs", "params", "expected"),
    [
        (jnp.bfloat16, jnp.float32, jnp.float32),
        (jnp.float16, jnp.float32, jnp.float32),
        (jnp.float32, jnp.float64, jnp.float64),
        (jnp.bfloat16, jnp.bfloat16, jnp.bfloat16),
    ],
)
def test_batch_norm_promotes_dtypes(inputs, params, expected, backend: str, monkeypatch: pytest.MonkeyPatch):
    """As by the plain operations; and a long sum of half floats does not overflow."""
    monkeypatch.setattr(jax, "default_backend", lambda: backend)
    x = jnp.asarray(100 + X, inputs)
    norm = jax.tree.map(lambda p: p.astype(params), BatchNorm(2))
    loss = lambda x, norm: jnp.sum(norm(x).astype(jnp.float64) ** 3)
    to_x, to_norm = jax.jit(jax.grad(loss, (0, 1)))(x, norm)
    assert (norm(x).dtype, to_x.dtype, to_norm.scale.dtype) == (expected, inputs, params)
    assert channel_mean(jnp.full((5000, 2), 60, inputs)).tolist() == [60.0, 60.0]


def test_batch_norm_gradient_outside_jit_compiles_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    monkeypatch.setattr(jax, "default_backend", lambda: "cpu")
    norm, x = BatchNorm(2), jnp.asarray(X)
    loss = lambda norm: norm(x).sum()
    with jax.log_compiles():
        jax.clear_caches()
        jax.grad(loss)(norm)
        assert "Compiling" in caplog.text
        caplog.clear()
        jax.grad(loss)(norm)
    assert "Compiling" not in caplog.text


@pytest.mark.parametrize("backend", ["cpu", "gpu"])
def test_channel_sums_within_shard_map_match_single_device(backend: str, monkeypatch: pytest.MonkeyPatch):
    """Parameters or inputs may be the same on all devices, and the other of each."""
    monkeypatch.setattr(jax, "default_backend", lambda: backend)
    mesh = jax.make_mesh((2,), ("d",), axis_types=(jax.sharding.AxisType.Auto,))
    x, scales = jnp.asarray(X), jnp.asarray(normal(8)(2, 2))
    each = lambda x, scale: jnp.sum(jnp.sin(channel_scale(x - spread(channel_mean(x), x), scale[0])))[None]
    for specs, arguments in (((P(), P("d")), (x, scales)), ((P("d"), P()), (x, scales[:1]))):
        sharded = jax.shard_map(each, mesh=mesh, in_specs=specs, out_specs=P("d"))
        found = jax.jit(jax.grad(lambda x, s, f=sharded: f(x, s).sum(), (0, 1)))(*arguments)
        halves = [
            [a if spec == P() else jnp.split(a, 2)[i] for a, spec in zip(arguments, specs, strict=True)]
            for i in (0, 1)
        ]
        alone = [jax.grad(lambda x, s: each(x, s).sum(), (0, 1))(*half) for half in halves]
        for number, spec in enumerate(specs):
            parts = [one[number] for one in alone]
            expected = sum(parts) if spec == P() else jnp.concatenate(parts)
            np.testing.assert_allclose(found[number], expected, rtol=1e-9, atol=1e-10)


def test_gpu_layers_match_cpu_layers(monkeypatch: pytest.MonkeyPatch):
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
