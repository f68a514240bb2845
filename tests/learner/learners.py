"""Small learners, and examples for them."""

import jax
import numpy as np
import optax

from innerloop.algorithms import maml
from innerloop.engine.inner.inner_loop import InnerLoop
from innerloop.learner.learner import Learner
from innerloop.nn import MLP
from innerloop.nn.losses import cross_entropy, mean_squared_error

INNER = InnerLoop(optax.sgd(0.5), steps=20)
ALGORITHM = maml(cross_entropy(), INNER)


def blobs(classes=3, each=4, seed=0):
    """Examples around one corner per class."""
    rng = np.random.default_rng(seed)
    number = np.tile(np.arange(classes), each)
    return np.eye(4, dtype=np.float32)[number] + rng.normal(0, 0.1, (classes * each, 4)), number


def regressor(outputs=1, loss_fn=mean_squared_error(), **options):  # noqa: B008 (a value)
    params = MLP(2, outputs, hidden=(), key=jax.random.key(0))
    return Learner(params, maml(loss_fn, InnerLoop(optax.sgd(0.2), steps=300)), **options)


def line(examples=20):
    x = np.random.default_rng(0).normal(size=(examples, 2)).astype(np.float32)
    return x, x @ np.array([2.0, -1.0], np.float32) + 3
