"""Which training examples helped? Metagradients of a whole training run, tested by retraining without them.

    python examples/data_attribution.py

A small network is trained on scikit-learn's handwritten digits. Training is an inner loop of many steps whose examples
are weighted; the derivative of the held-out loss with respect to these weights, through all steps, tells how much each
example helped. As a test, the network is retrained 100 times, each time without a different random 1 % of the examples:
the linear datamodeling score (LDS) is the rank correlation of predicted and actual changes of the held-out loss.
Influence functions, which look only at the end of training, are shown for comparison. On two cores the program takes
half a minute and prints an LDS of 0.98 for metagradients and 0.76 for influence functions. Metagradients are first
derivatives: they predict less well (0.80 to 0.89) with 1000 examples and 600 steps, where training is less smooth in
its data.

Engstrom et al. 2025, "Optimizing ML Training with Metagradient Descent", arXiv 2503.13751; Park et al. 2023, "TRAK",
arXiv 2303.14186 (the score); Koh and Liang 2017, "Understanding Black-box Predictions via Influence Functions".
"""

import argparse
import time
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.flatten_util import ravel_pytree
from scipy.stats import spearmanr
from sklearn.datasets import load_digits

import innerloop as il


class Weighted(NamedTuple):  # the inner loop adapts `model` and leaves `weights` alone
    model: dict[str, jax.Array]
    weights: jax.Array


class Examples(NamedTuple):
    images: jax.Array  # [examples, 64]
    digits: jax.Array
    places: jax.Array  # indices of their weights


def digits(train: int) -> tuple[Examples, Examples]:
    """Training and held-out examples."""
    images, labels = load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(images))
    images, labels = jnp.asarray(images[order] / 16, jnp.float32), jnp.asarray(labels[order])
    part = lambda rows: Examples(images[rows], labels[rows], jnp.arange(len(images[rows])))
    return part(slice(train)), part(slice(train, None))


def network(key: jax.Array, hidden: int) -> dict[str, jax.Array]:
    """A network with one hidden layer; tanh makes training smooth in its data."""
    first, second = jax.random.split(key)
    out = jax.random.normal(second, (hidden, 10)) / hidden**0.5
    return {"hidden": jax.random.normal(first, (64, hidden)) / 8, "bias": jnp.zeros(hidden), "out": out}


def each_loss(model: dict[str, jax.Array], examples: Examples) -> jax.Array:
    """The cross-entropy of every example."""
    hidden = jnp.tanh(examples.images @ model["hidden"] + model["bias"])
    return optax.softmax_cross_entropy_with_integer_labels(hidden @ model["out"], examples.digits)


def training_loss(params: Weighted, batch: Examples) -> jax.Array:
    """The weighted loss of a batch, with some weight decay."""
    decay = sum(jnp.sum(jnp.square(w)) for w in jax.tree.leaves(params.model))
    return jnp.mean(params.weights[batch.places] * each_loss(params.model, batch)) + 1e-4 * decay


def held_out_loss(params: Weighted, batch: Examples) -> jax.Array:
    return each_loss(params.model, batch).mean()


@partial(jax.jit, static_argnums=0)
def influences(training: il.Algorithm, start: Weighted, train: Examples, held_out: Examples) -> jax.Array:
    """Influence functions: -grad_held_out (H + damping)^-1 grad_i / n at the end of the training."""
    flat, unravel = ravel_pytree(training.adapt(start, train).model)
    loss = lambda flat: training_loss(Weighted(unravel(flat), start.weights), train)
    slope = jax.grad(lambda flat: held_out_loss(Weighted(unravel(flat), start.weights), held_out))(flat)
    product = lambda v: jax.jvp(jax.grad(loss), (flat,), (v,))[1] + 1e-2 * v
    solved, _ = jax.scipy.sparse.linalg.cg(product, slope, maxiter=200)
    return -jax.jvp(lambda flat: each_loss(unravel(flat), train), (flat,), (solved,))[1] / len(train.digits)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--smoke", action="store_true", help="a tiny version, for a test")
    smoke = parser.parse_args().smoke
    steps, hidden, count, size = (30, 8, 10, 200) if smoke else (300, 32, 100, 1400)

    train, held_out = digits(size)
    start = Weighted(network(jax.random.key(0), hidden), jnp.ones(size))
    inner = il.InnerLoop(optax.adam(3e-3), steps, select="model", minibatch=100, checkpoints="sqrt")
    training = il.maml(training_loss, inner, outer_loss_fn=held_out_loss)

    began = time.perf_counter()
    grads, _ = jax.jit(training.meta_grad)(start, il.Task(train, held_out))
    jax.block_until_ready(grads)
    print(f"{size} metagradients through {steps} steps: {time.perf_counter() - began:.1f} s with compilation")

    rng = np.random.default_rng(1)
    kept = np.ones((1 + count, size), np.float32)  # the first run leaves nothing out
    for row in kept[1:]:
        row[rng.choice(size, size // 100, replace=False)] = 0
    began = time.perf_counter()
    trained = lambda weights: training.adapt(start._replace(weights=weights), train)
    whole, *losses = np.asarray(jax.jit(jax.vmap(lambda kept: held_out_loss(trained(kept), held_out)))(kept))
    print(f"{count} runs with 1 % left out: {time.perf_counter() - began:.1f} s; loss {whole:.4f}")

    influence = influences(training, start, train, held_out)
    for name, score in (("metagradients", grads.weights), ("influence functions", influence)):
        predicted = (kept[1:] - 1) @ np.asarray(score)
        print(f"{name}: LDS {spearmanr(predicted, np.asarray(losses) - whole)[0]:.3f}")


if __name__ == "__main__":
    main()
