"""Whose statistics normalise a query, against the definition written out in NumPy."""

import inspect
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numeric_cases import normal

from innerloop.config.schema import Normalization
from innerloop.errors import InnerloopError
from innerloop.nn import MLP, Conv4
from innerloop.nn.layers import BatchNorm
from innerloop.nn.losses import call
from innerloop.nn.normalization import predict

EPSILON = 1e-3


def normalised(x: np.ndarray, source: np.ndarray) -> np.ndarray:
    """The definition: subtract the mean of `source`, divide by sqrt(its variance + epsilon)."""
    return (x - source.mean(0)) / np.sqrt(source.var(0) + EPSILON)


def layer(norm: BatchNorm, x: jax.Array, reference: int | None = None) -> jax.Array:
    return norm(x, reference)


def inputs() -> tuple[BatchNorm, np.ndarray, np.ndarray]:
    draw = normal(0)
    return BatchNorm(3), np.asarray(2 * draw(4, 3) + 1), np.asarray(draw(5, 3))


def outputs(mode, support: np.ndarray, query: np.ndarray) -> np.ndarray:
    return np.asarray(predict(layer, BatchNorm(3), jnp.asarray(support), jnp.asarray(query), mode))


def expected(mode: str, support: np.ndarray, query: np.ndarray) -> np.ndarray:
    if mode == "transductive":
        return normalised(query, query)
    if mode == "support":
        return normalised(query, support)
    return np.stack([normalised(q, np.concatenate([support, q[None]])) for q in query])


@pytest.mark.parametrize("mode", ["transductive", "inductive", "support"])
def test_predict_matches_definition(mode: str):
    _, support, query = inputs()
    np.testing.assert_allclose(outputs(mode, support, query), expected(mode, support, query), rtol=1e-12)


@pytest.mark.parametrize(
    ("mode", "on_queries", "on_support"),
    [("transductive", True, False), ("inductive", False, True), ("support", False, True)],
)
def test_prediction_depends_on_statistics_of_its_mode(mode: str, on_queries: bool, on_support: bool):
    """The first query's output, when another query or the support set changes."""
    _, support, query = inputs()
    other = query.copy()
    other[3] += 1
    before = outputs(mode, support, query)[0]
    assert (np.abs(outputs(mode, support, other)[0] - before).max() > 1e-3) == on_queries
    assert (np.abs(outputs(mode, support + support**2, query)[0] - before).max() > 1e-3) == on_support


def test_batch_norm_applies_scale_and_offset():
    """Each channel over examples and places together; scale and offset after."""
    norm = BatchNorm(2)
    norm = jax.tree.unflatten(jax.tree.structure(norm), [jnp.array([2.0, 3.0]), jnp.array([-1.0, 1.0])])
    x = np.asarray(normal(1)(3, 4, 5, 2))
    flat = x.reshape(-1, 2)
    wanted = normalised(flat, flat) * [2, 3] + [-1, 1]
    np.testing.assert_allclose(norm(jnp.asarray(x)), wanted.reshape(x.shape), rtol=1e-11)
    first = normalised(flat, x[:2].reshape(-1, 2)) * [2, 3] + [-1, 1]
    np.testing.assert_allclose(norm(jnp.asarray(x), 2), first.reshape(x.shape), rtol=1e-11)


@pytest.mark.parametrize("model", ["mlp", "conv4"])
def test_support_mode_ignores_queries_in_deep_networks(model: str):
    """`support` gives the support rows what they have alone: the queries behind them change nothing."""
    draw = normal(2)
    if model == "mlp":
        net = MLP(4, 2, hidden=(3, 3), normalize=True, key=jax.random.key(0))
        support, query = draw(4, 4), draw(3, 4)
    else:
        net = Conv4(2, image_shape=(16, 16, 1), filters=2, key=jax.random.key(0))
        support, query = draw(4, 16, 16, 1), draw(3, 16, 16, 1)
    with_support = jax.jit(lambda query: predict(call, net, support, query, "support"))
    alone = jax.jit(call)(net, support)
    # the queries are the support set again, then a few of its rows with others between them
    np.testing.assert_allclose(with_support(support), alone, rtol=1e-10, atol=1e-12)
    mixed = support.at[1].set(query[0])
    np.testing.assert_allclose(with_support(mixed)[2:], alone[2:], rtol=1e-10, atol=1e-12)
    assert np.abs(with_support(mixed)[1] - alone[1]).max() > 1e-3


def test_modes_agree_without_normalization():
    draw = normal(3)
    net = MLP(4, 2, hidden=(3,), key=jax.random.key(0))
    support, query = draw(4, 4), draw(3, 4)
    modes: tuple[Normalization, ...] = ("transductive", "inductive", "support")
    for mode in modes:
        found = jax.jit(partial(predict, call, mode=mode))(net, support, query)
        np.testing.assert_allclose(found, jax.jit(call)(net, query), rtol=1e-13)


def test_predict_errors():
    plain = lambda params, x: x * params
    with pytest.raises(InnerloopError, match="`mode` is unknown, got 'batch'"):
        inspect.unwrap(predict)(plain, jnp.ones(()), jnp.ones((2, 1)), jnp.ones((2, 1)), "batch")
    with pytest.raises(InnerloopError, match="takes `reference`"):
        predict(plain, jnp.ones(()), jnp.ones((2, 1)), jnp.ones((2, 1)), "support")
