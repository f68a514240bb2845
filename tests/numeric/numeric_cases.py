"""Small models and tasks for the identities; built inside tests, so that their arrays are float64."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from innerloop.algorithms.algorithm import Algorithm
from innerloop.inner import Derivative, InnerLoop
from innerloop.kernels.conv import conv_by_patches
from innerloop.losses import cross_entropy, mean_squared_error
from innerloop.models import Conv4
from innerloop.task import Batch, LossFn, Task

RULES: dict[str, Callable[[], optax.GradientTransformation]] = {
    "sgd": lambda: optax.sgd(0.1),
    "momentum": lambda: optax.sgd(0.05, momentum=0.9, nesterov=True),
    # eps_root: Adam's sqrt has no derivative where an element of the gradient is zero.
    "adam": lambda: optax.adam(0.05, eps_root=1e-8),
}

Case = tuple[LossFn, Any, Task]


def mlp(params: Any, x: jax.Array) -> jax.Array:
    """3 inputs, 4 hidden units, 2 outputs; smooth."""
    hidden = jnp.tanh(x @ params["body"]["w"] + params["body"]["b"])
    return hidden @ params["head"]["w"] + params["head"]["b"]


def mlp_case() -> Case:
    k = jax.random.split(jax.random.key(0), 8)
    params = {
        "body": {"w": jax.random.normal(k[0], (3, 4)), "b": 0.1 * jax.random.normal(k[1], (4,))},
        "head": {"w": jax.random.normal(k[2], (4, 2)), "b": 0.1 * jax.random.normal(k[3], (2,))},
    }
    support = Batch(jax.random.normal(k[4], (5, 3)), jax.random.normal(k[5], (5, 2)))
    query = Batch(jax.random.normal(k[6], (6, 3)), jax.random.normal(k[7], (6, 2)))
    return mean_squared_error(mlp), params, Task(support, query)


def smooth_conv_net(params: Any, x: jax.Array) -> jax.Array:
    """Two convolutions, softplus and average pooling: no kink, so finite differences are exact to rounding."""
    for w in params["body"]:
        x = jax.nn.softplus(conv_by_patches(x, w))
        n, height, width, channels = x.shape
        x = x.reshape(n, height // 2, 2, width // 2, 2, channels).mean((2, 4))
    return x.reshape(x.shape[0], -1) @ params["head"]


def images(key: jax.Array, side: int, count: int) -> Batch:
    return Batch(jax.random.normal(key, (count, side, side, 1)), jnp.arange(count) % 3)


def smooth_conv_case() -> Case:
    k = jax.random.split(jax.random.key(1), 5)
    params = {
        "body": [
            0.5 * jax.random.normal(k[0], (3, 3, 1, 2)),
            0.5 * jax.random.normal(k[1], (3, 3, 2, 2)),
        ],
        "head": jax.random.normal(k[2], (2 * 2 * 2, 3)),
    }
    return cross_entropy(smooth_conv_net), params, Task(images(k[3], 8, 3), images(k[4], 8, 6))


def conv4_case() -> Case:
    k = jax.random.split(jax.random.key(2), 3)
    model = Conv4(3, image_shape=(16, 16, 1), filters=3, key=k[0])
    return cross_entropy(), model, Task(images(k[1], 16, 3), images(k[2], 16, 6))


CASES = {"mlp": mlp_case, "smooth conv": smooth_conv_case, "conv4": conv4_case}


def sgd(steps: int, rate: float = 0.1, derivative: Derivative = "unrolled") -> InnerLoop:
    return InnerLoop(optax.sgd(rate), steps, derivative=derivative)


def gradient(algorithm: Algorithm, params: Any, task: Task) -> Any:
    return jax.jit(algorithm.meta_grad)(params, task)[0]


def flat(tree: Any) -> np.ndarray:
    return np.concatenate([np.ravel(x) for x in jax.tree.leaves(tree)])


def assert_close(a: Any, b: Any, digits: float = 1e-11) -> None:
    """Equal to `digits` of the larger norm: an identity in float64, whatever the order of summation."""
    assert jax.tree.structure(a) == jax.tree.structure(b)
    x, y = flat(a), flat(b)
    assert np.isfinite(x).all()
    assert x.dtype == y.dtype == np.float64
    assert np.linalg.norm(x - y) <= digits * max(np.linalg.norm(x), np.linalg.norm(y))
    assert np.linalg.norm(x) > 1e-6  # two zeros agree about nothing


def differ(a: Any, b: Any) -> float:
    """Relative distance."""
    x, y = flat(a), flat(b)
    return float(np.linalg.norm(x - y) / np.linalg.norm(y))
