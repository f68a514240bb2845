"""Which training examples helped? Metagradients of a whole training, tested by training again without them.

    python examples/data_attribution.py

A small network is trained on scikit-learn's handwritten digits. The training is an inner loop of many steps whose
examples carry weights; the derivative of the held-out loss in these weights, through all steps, tells how much each
example helped. To test it, the network is trained again 100 times with another random 1 % of the examples left out: the
linear datamodeling score (LDS) is the rank correlation of predicted and real changes of the held-out loss. Influence
functions, which look at the end of the training alone, are beside it. On two cores it takes half a minute and prints
an LDS of 0.98 for metagradients and 0.76 for influence functions. Metagradients are first derivatives: they predict
less well (0.80 to 0.89) with 1000 examples and 600 steps, where the training is less smooth in its data.

Engstrom et al. 2025, "Optimizing ML Training with Metagradient Descent", arXiv 2503.13751; Park et al. 2023, "TRAK",
arXiv 2303.14186 (the score); Koh and Liang 2017, "Understanding Black-box Predictions via Influence Functions".
"""

import argparse
import time
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.flatten_util import ravel_pytree
from scipy.stats import rankdata
from sklearn.datasets import load_digits

import innerloop as il


class Weighted(NamedTuple):
    """What the inner loop gets: it adapts `model` and leaves `weights` alone."""

    model: dict[str, jax.Array]
    weights: jax.Array


class Examples(NamedTuple):
    """Images `[examples, 64]`, digits, and the places of their weights."""

    images: jax.Array
    digits: jax.Array
    places: jax.Array


def digits(train: int) -> tuple[Examples, Examples]:
    """Training and held-out examples."""
    images, labels = load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(images))
    images, labels = jnp.asarray(images[order] / 16, jnp.float32), jnp.asarray(labels[order])
    part = lambda rows: Examples(images[rows], labels[rows], jnp.arange(len(images[rows])))
    return part(slice(train)), part(slice(train, None))


def network(key: jax.Array, hidden: int) -> dict[str, jax.Array]:
    """A network with one hidden layer; tanh, for trainings that are smooth in their data."""
    first, second = jax.random.split(key)
    return {
        "hidden": jax.random.normal(first, (64, hidden)) / 8,
        "bias": jnp.zeros(hidden),
        "out": jax.random.normal(second, (hidden, 10)) / hidden**0.5,
    }


def each_loss(model: dict[str, jax.Array], examples: Examples) -> jax.Array:
    """The cross-entropy of every example."""
    hidden = jnp.tanh(examples.images @ model["hidden"] + model["bias"])
    return optax.softmax_cross_entropy_with_integer_labels(hidden @ model["out"], examples.digits)


def training_loss(params: Weighted, batch: Examples) -> jax.Array:
    """The weighted loss of a batch, with some weight decay."""
    decay = sum(jnp.sum(jnp.square(w)) for w in jax.tree.leaves(params.model))
    return jnp.mean(params.weights[batch.places] * each_loss(params.model, batch)) + 1e-4 * decay


def held_out_loss(params: Weighted, batch: Examples) -> jax.Array:
    """The mean loss of held-out examples."""
    return each_loss(params.model, batch).mean()


def metagradients(training: il.Algorithm, start: Weighted, train: Examples, held_out: Examples) -> np.ndarray:
    """The derivative of the held-out loss in the weight of every example, through the whole training."""
    grads, _ = jax.jit(training.meta_grad)(start, il.Task(train, held_out))
    return np.asarray(grads.weights)


def influences(training: il.Algorithm, start: Weighted, train: Examples, held_out: Examples) -> np.ndarray:
    """The same by influence functions: -grad_held_out (H + damping)^-1 grad_i / n at the end of the training."""

    @jax.jit
    def compute(start: Weighted) -> jax.Array:
        trained = training.adapt(start, train)
        flat, unravel = ravel_pytree(trained.model)
        loss = lambda flat: training_loss(Weighted(unravel(flat), start.weights), train)
        slope = jax.grad(lambda flat: held_out_loss(Weighted(unravel(flat), start.weights), held_out))(flat)
        product = lambda v: jax.jvp(jax.grad(loss), (flat,), (v,))[1] + 1e-2 * v
        solved, _ = jax.scipy.sparse.linalg.cg(product, slope, maxiter=200)
        changes = jax.jvp(lambda flat: each_loss(unravel(flat), train), (flat,), (solved,))[1]
        return -changes / len(train.digits)

    return np.asarray(compute(start))


def retrained(
    training: il.Algorithm, start: Weighted, train: Examples, held_out: Examples, kept: jax.Array
) -> np.ndarray:
    """The held-out losses of trainings with weights `kept`, `[trainings, examples]`, vectorised."""

    @jax.jit
    @jax.vmap
    def loss(weights: jax.Array) -> jax.Array:
        return held_out_loss(training.adapt(start._replace(weights=weights), train), held_out)

    return np.asarray(loss(kept))


def rank_correlation(a: np.ndarray, b: np.ndarray) -> float:
    """Spearman's correlation."""
    return float(np.corrcoef(rankdata(a), rankdata(b))[0, 1])


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
    gradients = metagradients(training, start, train, held_out)
    print(f"{size} metagradients through {steps} steps: {time.perf_counter() - began:.1f} s with compilation")
    influence = influences(training, start, train, held_out)

    rng = np.random.default_rng(1)
    kept = np.ones((count, size), np.float32)
    for row in kept:
        row[rng.choice(size, size // 100, replace=False)] = 0
    began = time.perf_counter()
    (whole, *losses) = retrained(
        training, start, train, held_out, jnp.asarray(np.concatenate([np.ones_like(kept[:1]), kept]))
    )
    print(
        f"{count} trainings with 1 % left out: {time.perf_counter() - began:.1f} s; held-out loss {whole:.4f}"
    )
    changes = np.asarray(losses) - whole
    for name, scores in (("metagradients", gradients), ("influence functions", influence)):
        print(f"{name}: LDS {rank_correlation((kept - 1) @ scores, changes):.3f}")


if __name__ == "__main__":
    main()
