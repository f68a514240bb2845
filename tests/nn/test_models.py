"""Built-in models: shapes of every variant, features, initial weights, errors."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from innerloop.engine.pytree import cast, paths
from innerloop.engine.trainable import check_trainable
from innerloop.errors import InnerloopError
from innerloop.nn import MLP, Conv4
from innerloop.nn.kernels.conv import conv
from innerloop.nn.layers import Linear, glorot_uniform

KEY = jax.random.key(0)


@pytest.mark.parametrize("features", ["mean", "flatten"])
@pytest.mark.parametrize("downsample", ["stride", "pool"])
@pytest.mark.parametrize("side", [(16, 20), (28, 17)])
def test_conv4_shapes(side: tuple[int, int], downsample, features):
    """Stride halves upwards (28 -> 2), VALID pooling downwards (28 -> 1); shapes alone, nothing is computed."""
    model = eqx.filter_eval_shape(
        lambda: Conv4(5, image_shape=(*side, 3), filters=4, downsample=downsample, features=features, key=KEY)
    )
    halve = (lambda n: -(-n // 2)) if downsample == "stride" else (lambda n: n // 2)
    places = [halve(halve(halve(halve(n)))) for n in side]
    images = jax.ShapeDtypeStruct((7, *side, 3), jnp.float32)
    width = 4 if features == "mean" else 4 * places[0] * places[1]
    assert jax.eval_shape(lambda m, x: m.embed(x), model, images).shape == (7, width)
    assert jax.eval_shape(lambda m, x: m(x), model, images).shape == (7, 5)


def test_parameter_counts_match_papers():
    """Parameters of the papers' networks: 4 x (9 c f + 2 f) and the head (no bias before a normalisation)."""
    count = lambda model: sum(x.size for x in jax.tree.leaves(model))
    omniglot = eqx.filter_eval_shape(lambda: Conv4(5, image_shape=(28, 28, 1), key=KEY))
    assert count(omniglot) == 9 * 64 + 3 * 9 * 64 * 64 + 4 * 128 + 64 * 5 + 5
    pooled = eqx.filter_eval_shape(
        lambda: Conv4(5, image_shape=(84, 84, 3), filters=32, downsample="pool", features="flatten", key=KEY)
    )
    assert count(pooled) == 9 * 3 * 32 + 3 * 9 * 32 * 32 + 4 * 64 + 800 * 5 + 5
    assert count(eqx.filter_eval_shape(lambda: MLP(1, 1, key=KEY))) == 1761


def test_conv4_has_only_named_trainable_leaves():
    model = eqx.filter_eval_shape(lambda: Conv4(5, image_shape=(16, 16, 1), filters=2, key=KEY))
    check_trainable(model, "conv4")
    names = paths(model)
    assert names[-2:] == ["head/weight", "head/bias"]
    assert all(name.startswith(("body/", "head/")) for name in names)
    check_trainable(eqx.filter_eval_shape(lambda: MLP(2, 1, normalize=True, key=KEY)), "mlp")


@pytest.mark.parametrize("backend", ["cpu", "gpu", "tpu"])
@pytest.mark.parametrize("channels", [1, 4])
@pytest.mark.parametrize(("of_images", "of_weights"), [("float32", "bfloat16"), ("bfloat16", "float32")])
def test_conv4_promotes_mixed_dtypes(backend, channels, of_images, of_weights, monkeypatch):
    """As a linear layer does; gradients have the dtypes of the weights. Shapes alone, nothing is computed."""
    monkeypatch.setattr(jax, "default_backend", lambda: backend)
    monkeypatch.setenv("INNERLOOP_GPU_CONVOLUTION", "patches")
    make = lambda: Conv4(3, image_shape=(16, 16, channels), filters=4, downsample="pool", key=KEY)
    model = eqx.filter_eval_shape(lambda: cast(make(), of_weights))
    images = jax.ShapeDtypeStruct((2, 16, 16, channels), of_images)
    assert jax.eval_shape(lambda m, x: m(x), model, images).dtype == jnp.float32
    slopes = jax.eval_shape(jax.grad(lambda m, x: m(x).sum()), model, images)
    assert {x.dtype for x in jax.tree.leaves(slopes)} == {jnp.dtype(of_weights)}


def test_conv_of_mixed_dtypes_uses_wider_dtype():
    """To the bit, and two narrow arrays stay narrow."""
    x, w = (jax.random.normal(KEY, shape) for shape in ((2, 4, 4, 2), (5, 5, 2, 3)))
    narrow = w.astype(jnp.bfloat16)
    assert (conv(x, narrow) == conv(x, narrow.astype(jnp.float32))).all()
    assert jax.eval_shape(conv, x.astype(jnp.bfloat16), narrow).dtype == jnp.bfloat16


def test_conv4_rejects_small_images():
    with pytest.raises(InnerloopError, match=r"16 by 16, got \(28, 15, 1\); resize"):
        Conv4(5, image_shape=(28, 15, 1), key=KEY)


def test_mlp_matches_numpy():
    """Two layers in NumPy; images are flattened; without hidden layers it is linear."""
    activations: dict[Any, Any] = {"relu": lambda x: np.maximum(x, 0), "tanh": np.tanh}
    for activation, function in activations.items():
        model = MLP(4, 2, hidden=(3,), activation=activation, key=KEY)
        x = np.random.default_rng(0).normal(size=(5, 2, 2, 1)).astype(np.float32)
        body, head = model.body[0], model.head
        hidden = function(x.reshape(5, 4) @ np.asarray(body.weight) + np.asarray(body.bias))
        np.testing.assert_allclose(model.embed(jnp.asarray(x)), hidden, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(
            model(jnp.asarray(x)), hidden @ np.asarray(head.weight), rtol=1e-5, atol=1e-6
        )
    assert MLP(4, 2, hidden=(), key=KEY).head.weight.shape == (4, 2)


def test_normalized_mlp_has_standardized_hidden_units():
    """Every hidden unit has mean zero and deviation one over the batch before its ReLU."""
    model = MLP(3, 2, hidden=(4,), activation="tanh", normalize=True, key=KEY)
    x = jnp.asarray(np.random.default_rng(0).normal(size=(50, 3)).astype(np.float32))
    before = np.arctanh(np.asarray(model.embed(x)))
    np.testing.assert_allclose(before.mean(0), 0, atol=1e-4)
    np.testing.assert_allclose(before.std(0), 1, atol=0.02)


def test_initial_weight_distributions():
    """Glorot: uniform within sqrt(6 / (in + out)), deviation a / sqrt 3; or truncated normal of a deviation."""
    weights = np.asarray(glorot_uniform(KEY, (100, 100), 100, 100))
    limit = np.sqrt(6 / 200)
    assert 0.99 * limit < np.abs(weights).max() <= limit
    # four standard errors of the deviation: relative sqrt((kurtosis - 1) / 4 n), kurtosis 9/5
    assert abs(weights.std() / (limit / np.sqrt(3)) - 1) < 4 * np.sqrt(0.8 / 4 / weights.size)
    normal = np.asarray(Linear(100, 100, key=KEY, scale=0.01).weight)
    assert 0.018 < np.abs(normal).max() <= 0.02
    assert 0.0085 < normal.std() < 0.0092  # a normal cut at 2 deviations has 0.88 of its deviation
    assert not np.asarray(Linear(3, 2, key=KEY).bias).any()
    keys = MLP(4, 4, hidden=(4, 4), key=KEY)
    assert not np.array_equal(keys.body[0].weight, keys.body[1].weight)
