"""Small models and tasks for the identities; built inside tests, so that their arrays are float64."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax

from innerloop.engine.algorithm import Algorithm
from innerloop.engine.inner.inner_loop import Derivative, InnerLoop
from innerloop.engine.types import Batch, LossFn, Task
from innerloop.nn import Conv4
from innerloop.nn.kernels.conv import conv
from innerloop.nn.losses import cross_entropy, mean_squared_error

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


def normal(seed: int) -> Callable[..., jax.Array]:
    """Normal numbers of a shape, from NumPy: nothing to compile."""
    rng = np.random.default_rng(seed)
    return lambda *shape: jnp.asarray(rng.normal(size=shape))


def mlp_case() -> Case:
    draw = normal(0)
    params = {"body": {"w": draw(3, 4), "b": draw(4)}, "head": {"w": draw(4, 2), "b": draw(2)}}
    task = Task(Batch(draw(5, 3), draw(5, 2)), Batch(draw(6, 3), draw(6, 2)))
    return mean_squared_error(mlp), params, task


def smooth_conv_net(params: Any, x: jax.Array) -> jax.Array:
    """Two convolutions, softplus and average pooling: no kink, so finite differences are exact to rounding."""
    for w in params["body"]:
        x = jax.nn.softplus(conv(x, w))
        n, height, width, channels = x.shape
        x = x.reshape(n, height // 2, 2, width // 2, 2, channels).mean((2, 4))
    return x.reshape(x.shape[0], -1) @ params["head"]


def images(seed: int, side: int, count: int) -> Batch:
    return Batch(normal(seed)(count, side, side, 1), jnp.asarray(np.arange(count) % 3))


def smooth_conv_case() -> Case:
    draw = normal(1)
    params = {"body": [0.5 * draw(3, 3, 1, 4), 0.5 * draw(3, 3, 4, 2)], "head": draw(2 * 2 * 2, 3)}
    return cross_entropy(smooth_conv_net), params, Task(images(2, 8, 3), images(3, 8, 6))


def conv4_case() -> Case:
    """The first two blocks, as the others are like the second."""
    model = Conv4(3, image_shape=(16, 16, 1), filters=4, key=jax.random.key(2))
    model = eqx.tree_at(lambda model: model.body, model, model.body[:2])
    return cross_entropy(), model, Task(images(4, 8, 3), images(5, 8, 6))


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
