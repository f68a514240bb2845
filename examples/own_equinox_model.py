"""An ordinary Equinox model, unchanged: separate the parameters from the rest and meta-train them.

`eqx.nn.MLP` has its activation function as a leaf and takes one example at a time. `eqx.partition` extracts the float
arrays, and `jax.vmap` applies the model to a batch.

Run with: python examples/own_equinox_model.py
"""

import argparse

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax

from innerloop import InnerLoop, Learner, OuterLoop, Sinusoid, anil, maml, mean_squared_error


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--smoke", action="store_true", help="a few seconds, to see that it runs")
    steps = 300 if parser.parse_args().smoke else 10_000

    model = eqx.nn.MLP(1, 1, 40, 2, activation=jax.nn.tanh, key=jax.random.key(0))
    params, static = eqx.partition(model, eqx.is_inexact_array)

    def apply(params, x):
        return jax.vmap(eqx.combine(params, static))(x)

    loss_fn = mean_squared_error(apply)
    inner = InnerLoop(optax.sgd(0.02), steps=3)
    # `head` can name any part of the tree. In an eqx.nn.MLP of depth 2, the last layer is layer 2.
    for name, algorithm in (("MAML", maml(loss_fn, inner)), ("ANIL", anil(loss_fn, inner, head="layers/2"))):
        loop = OuterLoop(algorithm, optax.adam(1e-3), Sinusoid(), meta_batch=8)
        state, info = loop.run(loop.init(params, jax.random.key(1)), steps)
        first, last = np.mean(info.outer_loss[:50]), np.mean(info.outer_loss[-50:])
        print(f"{name}: loss after adapting {first:.3f} -> {last:.3f} in {steps} meta-steps")

    learner = Learner(state.params, algorithm)  # ANIL's, so it adapts only the head
    x = jnp.linspace(-5, 5, 10)[:, None]
    learner.fit(x, 2 * np.sin(x))
    print("a new wave's error before each inner step:", np.round(learner.losses_, 3))
    adapted = eqx.combine(learner.params_, static)  # an ordinary eqx.nn.MLP again
    print("the adapted model at 0.5:", float(adapted(jnp.array([0.5]))[0]))


if __name__ == "__main__":
    main()
