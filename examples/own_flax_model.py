"""Flax models with dropout and batch normalisation, in NNX and in Linen, each as Flax documents it.

Two functions describe a model: `apply` trains it, with a key for dropout, and returns its new running statistics;
`predict` uses them. Every inner step has a new dropout mask, and every task has its own running statistics.

Needs Flax: pip install innerloop[flax].

Run with: python examples/own_flax_model.py
"""

import argparse

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import linen, nnx

from innerloop import InnerLoop, Learner, Loss, OuterLoop, Sinusoid, maml, mean_squared_error


class Regressor(nnx.Module):
    def __init__(self, rngs):
        self.first = nnx.Linear(1, 40, rngs=rngs)
        self.second = nnx.Linear(40, 40, rngs=rngs)
        self.norm = nnx.BatchNorm(40, momentum=0.5, rngs=rngs)  # low, for few steps
        self.dropout = nnx.Dropout(0.1, rngs=rngs)
        self.head = nnx.Linear(40, 1, rngs=rngs)

    def __call__(self, x):
        x = jnp.tanh(self.second(jnp.tanh(self.first(x))))
        return self.head(self.dropout(self.norm(x)))


def from_nnx():
    """Parameters and loss of an NNX model, which is split by variable type."""
    model = Regressor(nnx.Rngs(params=0, dropout=1))
    graph, params, statistics, rest = nnx.split(model, nnx.Param, nnx.BatchStat, ...)

    # A copy, because layers write to their variables, and those of `rest` are shared by all calls.
    merged = lambda params, state: nnx.merge(graph, params, state, rest, copy=True)

    def apply(params, x, key, state):
        model = merged(params, state)
        nnx.reseed(model, dropout=key)
        model.train()
        return model(x), nnx.state(model, nnx.BatchStat)

    def predict(params, x, state):
        model = merged(params, state)
        model.eval()
        return model(x)

    return params, Loss(mean_squared_error(apply, predict), random=True, state=statistics)


class LinenRegressor(linen.Module):
    @linen.compact
    def __call__(self, x, train):
        x = jnp.tanh(linen.Dense(40, name="first")(x))
        x = jnp.tanh(linen.Dense(40, name="second")(x))
        x = linen.BatchNorm(use_running_average=not train, momentum=0.5, name="norm")(x)
        x = linen.Dropout(0.1, deterministic=not train)(x)
        return linen.Dense(1, name="head")(x)


def from_linen():
    """Parameters and loss of a Linen model, whose variables are already trees."""
    model = LinenRegressor()
    variables = model.init(jax.random.key(0), jnp.zeros((1, 1)), train=False)

    def apply(params, x, key, state):
        variables = {"params": params, "batch_stats": state}
        outputs, new = model.apply(variables, x, train=True, rngs={"dropout": key}, mutable=["batch_stats"])
        return outputs, new["batch_stats"]

    def predict(params, x, state):
        return model.apply({"params": params, "batch_stats": state}, x, train=False)

    loss = mean_squared_error(apply, predict)
    return variables["params"], Loss(loss, random=True, state=variables["batch_stats"])


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--smoke", action="store_true", help="a few seconds, to see that it runs")
    steps = 150 if parser.parse_args().smoke else 10_000
    wave = np.linspace(-5, 5, 20, dtype=np.float32)[:, None]
    for name, (params, loss_fn) in (("NNX", from_nnx()), ("Linen", from_linen())):
        algorithm = maml(loss_fn, InnerLoop(optax.sgd(0.02), steps=3))
        loop = OuterLoop(algorithm, optax.adam(1e-3), Sinusoid(20, 20), meta_batch=8)
        state, info = loop.run(loop.init(params, jax.random.key(1)), steps)
        first, last = np.mean(info.outer_loss[:50]), np.mean(info.outer_loss[-50:])
        print(f"{name}: loss after adapting {first:.3f} -> {last:.3f} in {steps} meta-steps")

        learner = Learner(state.params, algorithm.with_inner(steps=20)).fit(wave, np.sin(wave))
        print("  fitted to a new wave, at 1.5 it predicts", learner.predict(np.full((1, 1), 1.5)).item())
        means = jax.tree.leaves(learner.params_.state)[0]
        print("  its running means, after 20 inner steps:", np.round(means[:3], 3))


if __name__ == "__main__":
    main()
