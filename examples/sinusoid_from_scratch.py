"""MAML on sinusoids with a network and a loss of its own: an initialisation that learns a wave from ten points.

Run with: python examples/sinusoid_from_scratch.py [--plot sinusoid.png]
"""

import argparse

import jax
import jax.numpy as jnp
import numpy as np
import optax

from innerloop import InnerLoop, OuterLoop, Sinusoid, evaluate, maml


def network(params, x):
    """Two hidden layers of 40: x [examples, 1] to y [examples, 1]."""
    for weight, bias in params[:-1]:
        x = jax.nn.relu(x @ weight + bias)
    weight, bias = params[-1]
    return x @ weight + bias


def new_params(key, widths=(1, 40, 40, 1)):
    keys = jax.random.split(key, len(widths) - 1)
    shapes = zip(keys, widths[:-1], widths[1:], strict=True)
    return [(jax.random.normal(k, (a, b)) * (2 / (a + b)) ** 0.5, jnp.zeros(b)) for k, a, b in shapes]


def loss_fn(params, batch):
    return jnp.mean((network(params, batch.inputs) - batch.targets) ** 2)


ALGORITHM = maml(loss_fn, InnerLoop(optax.sgd(0.01), steps=1))
LONGER = ALGORITHM.with_inner(steps=10)


def train(steps, meta_batch):
    loop = OuterLoop(ALGORITHM, optax.adam(1e-3), Sinusoid(shots=10, queries=10), meta_batch=meta_batch)
    state = loop.init(new_params(jax.random.key(0)), jax.random.key(1))
    for _ in range(2):
        state, info = loop.run(state, steps // 2)
        print(f"meta-step {int(state.step)}: loss after adapting {np.mean(info.outer_loss[-50:]):.3f}")
    return state.params


def plot(params, path):
    """One new wave: before adapting, and after ten steps on ten points."""
    import matplotlib.pyplot as plt

    task = Sinusoid(shots=10, queries=200).sample(jax.random.key(7))
    adapted = LONGER.adapt(params, task.support)
    x = jnp.sort(task.query.inputs, axis=0)
    order = jnp.argsort(task.query.inputs[:, 0])
    plt.plot(x, task.query.targets[order], label="wave")
    plt.plot(x, network(params, x), ":", label="before")
    plt.plot(x, network(adapted, x), "--", label="after ten steps")
    plt.plot(task.support.inputs, task.support.targets, "k^", label="examples")
    plt.legend()
    plt.savefig(path)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--smoke", action="store_true", help="a few seconds, to see that it runs")
    parser.add_argument("--plot", metavar="PNG", help="draw one wave before and after adapting")
    options = parser.parse_args()
    params = train(*((2000, 10) if options.smoke else (20_000, 25)))
    curve = evaluate(
        LONGER,
        params,
        Sinusoid(shots=10, queries=100),
        key=jax.random.key(2),
        num_tasks=100 if options.smoke else 1000,
    )
    for step in (0, 1, 10):
        print(f"error after {step:2} steps: {curve.mean('loss')[step]:.3f} ± {curve.ci95('loss')[step]:.3f}")
    if options.plot:
        plot(params, options.plot)


if __name__ == "__main__":
    main()
