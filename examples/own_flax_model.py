"""Flax models, unchanged: NNX is split into graph and parameters; Linen's parameters are a tree already.

Needs Flax: pip install innerloop[flax].

Run with: python examples/own_flax_model.py
"""

import argparse
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import linen, nnx

from innerloop import InnerLoop, OuterLoop, Sinusoid, maml, mean_squared_error
from innerloop.nn.losses import Apply


class Regressor(nnx.Module):
    def __init__(self, rngs):
        self.hidden = nnx.Linear(1, 40, rngs=rngs)
        self.head = nnx.Linear(40, 1, rngs=rngs)

    def __call__(self, x):
        return self.head(jnp.tanh(self.hidden(x)))


class LinenRegressor(linen.Module):
    @linen.compact
    def __call__(self, x):
        x = jnp.tanh(linen.Dense(40, name="hidden")(x))
        return linen.Dense(1, name="head")(x)


def from_nnx() -> tuple[Any, Apply]:
    """(params, apply) of an NNX model. Other state, such as dropout keys, would be in `rest`."""
    graph, params, rest = nnx.split(Regressor(nnx.Rngs(0)), nnx.Param, ...)
    # A pure dict of arrays, because the metadata of variables would have to agree between params and gradients.
    return nnx.to_pure_dict(params), lambda pure, x: nnx.merge(graph, with_values(params, pure), rest)(x)


def with_values(params, pure):
    """The NNX state with these values."""
    state = jax.tree.map(lambda x: x, params)
    nnx.replace_by_pure_dict(state, pure)
    return state


def from_linen() -> tuple[Any, Any]:
    """(params, apply) of a Linen model."""
    model = LinenRegressor()
    return model.init(jax.random.key(0), jnp.zeros((1, 1)))["params"], lambda p, x: model.apply(
        {"params": p}, x
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--smoke", action="store_true", help="a few seconds, to see that it runs")
    steps = 300 if parser.parse_args().smoke else 10_000
    for name, (params, apply) in (("NNX", from_nnx()), ("Linen", from_linen())):
        algorithm = maml(mean_squared_error(apply), InnerLoop(optax.sgd(0.02), steps=3))
        loop = OuterLoop(algorithm, optax.adam(1e-3), Sinusoid(), meta_batch=8)
        state, info = loop.run(loop.init(params, jax.random.key(1)), steps)
        first, last = np.mean(info.outer_loss[:50]), np.mean(info.outer_loss[-50:])
        print(f"{name}: loss after adapting {first:.3f} -> {last:.3f} in {steps} meta-steps")


if __name__ == "__main__":
    main()
