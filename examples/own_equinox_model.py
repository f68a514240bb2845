"""An Equinox model with dropout and batch normalisation, as Equinox documents it: meta-train it and adapt it.

`eqx.partition` extracts the float arrays, which are the parameters. `apply` trains the model, with a key for dropout,
and returns its new state; `predict` is the model in inference mode.

Run with: python examples/own_equinox_model.py
"""

import argparse

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax

from innerloop import InnerLoop, Learner, Loss, OuterLoop, Sinusoid, anil, maml, mean_squared_error


class Regressor(eqx.Module):
    body: eqx.nn.MLP
    norm: eqx.nn.BatchNorm
    dropout: eqx.nn.Dropout
    head: eqx.nn.Linear

    def __init__(self, key):
        body, head = jax.random.split(key)
        self.body = eqx.nn.MLP(1, 40, 40, 1, jax.nn.tanh, jax.nn.tanh, key=body)
        # A low momentum, since the statistics have only a few inner steps to adapt in.
        self.norm = eqx.nn.BatchNorm(40, axis_name="batch", momentum=0.5, mode="batch")
        self.dropout = eqx.nn.Dropout(0.1)
        self.head = eqx.nn.Linear(40, 1, key=head)

    def __call__(self, x, state, key=None):
        x, state = self.norm(self.body(x), state)
        return self.head(self.dropout(x, key=key)), state


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--smoke", action="store_true", help="a few seconds, to see that it runs")
    steps = 300 if parser.parse_args().smoke else 10_000

    model, start = eqx.nn.make_with_state(Regressor)(jax.random.key(0))
    params, static = eqx.partition(model, eqx.is_inexact_array)

    def batched(model, x, state, keys=None):
        each = jax.vmap(model, in_axes=(0, None, 0), out_axes=(0, None), axis_name="batch")
        return each(x, state, keys)

    def apply(params, x, key, state):
        return batched(eqx.combine(params, static), x, state, jax.random.split(key, len(x)))

    def predict(params, x, state):
        return batched(eqx.nn.inference_mode(eqx.combine(params, static)), x, state)[0]

    loss_fn = Loss(mean_squared_error(apply, predict), random=True, state=start)
    inner = InnerLoop(optax.sgd(0.02), steps=3)
    # `head` can name any part of the tree: here it is the layer of that name.
    for name, algorithm in (("MAML", maml(loss_fn, inner)), ("ANIL", anil(loss_fn, inner, head="head"))):
        loop = OuterLoop(algorithm, optax.adam(1e-3), Sinusoid(20, 20), meta_batch=8)
        state, info = loop.run(loop.init(params, jax.random.key(1)), steps)
        first, last = np.mean(info.outer_loss[:50]), np.mean(info.outer_loss[-50:])
        print(f"{name}: loss after adapting {first:.3f} -> {last:.3f} in {steps} meta-steps")

    learner = Learner(state.params, algorithm)  # ANIL's, so it adapts only the head
    x = jnp.linspace(-5, 5, 20)[:, None]
    learner.fit(x, 2 * np.sin(x))
    print("a new wave's error before each inner step:", np.round(learner.losses_, 3))
    adapted = eqx.nn.inference_mode(eqx.combine(learner.params_.params, static))  # an ordinary model again
    print("the adapted model at 0.5:", float(adapted(jnp.array([0.5]), learner.params_.state)[0][0]))


if __name__ == "__main__":
    main()
