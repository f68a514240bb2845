r"""A new algorithm in one file: Meta-SGD, which learns the initialisation and a step size for every parameter.

    theta' = theta - alpha * grad L(theta; support)      (alpha has theta's shape)
    g = grad_{theta, alpha} L(theta'; query)

An algorithm is two pure functions of one task, `adapt` and `meta_grad`. The library adds batching over tasks, devices,
the outer optimiser and evaluation. Here the meta-parameters are the pair (theta, log alpha), where the logarithm keeps
every step size positive. Li, Zhou, Chen and Li 2017, "Meta-SGD", arXiv 1707.09835.

Run with: python examples/own_algorithm.py
"""

import argparse
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import optax

from innerloop import (
    MLP,
    Algorithm,
    InnerLoop,
    MetaInfo,
    OuterLoop,
    Sinusoid,
    evaluate,
    maml,
    mean_squared_error,
)

RATE = 0.01
INNER = InnerLoop(optax.sgd(RATE), steps=1)


class MetaSGD(Algorithm):
    """Meta-SGD: its learned step sizes replace the rule of the inner loop."""

    def init(self, params):
        """(theta, log alpha), with the same step size everywhere."""
        return params, jax.tree.map(lambda x: jnp.full_like(x, jnp.log(RATE)), params)

    def initialization(self, meta_params):
        """theta."""
        return meta_params[0]

    def inner_for(self, meta_params):
        """The inner loop with the learned step sizes."""
        scale = lambda grads, _: jax.tree.map(lambda g, r: -jnp.exp(r) * g, grads, meta_params[1])
        return replace(self.inner, rule=optax.stateless(scale))

    def meta_grad(self, meta_params, task, *, key=None):
        """MAML's meta-gradient, with respect to the pair."""

        def outer_loss(meta_params):
            trajectory = self.trajectory(meta_params, task.support, key=key)
            return self.query_loss(trajectory.adapted, task.query, key=key), trajectory.losses

        (loss, losses), grads = jax.value_and_grad(outer_loss, has_aux=True)(meta_params)
        return grads, MetaInfo(loss, losses)


def check_identity(loss_fn, params):
    """With equal step sizes, the gradient in theta must equal MAML's. Every algorithm should start with such a test."""
    task, algorithm = Sinusoid().sample(jax.random.key(3)), MetaSGD(loss_fn, INNER)
    (ours, _), _ = algorithm.meta_grad(algorithm.init(params), task)
    theirs, _ = maml(loss_fn, INNER).meta_grad(params, task)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5), ours, theirs)
    print("with equal step sizes, Meta-SGD's gradient is MAML's")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--smoke", action="store_true", help="a few seconds, to see that it runs")
    steps = 500 if parser.parse_args().smoke else 10_000
    loss_fn, params = mean_squared_error(), MLP(1, 1, key=jax.random.key(0))
    check_identity(loss_fn, params)
    for name, algorithm in (("MAML", maml(loss_fn, INNER)), ("Meta-SGD", MetaSGD(loss_fn, INNER))):
        loop = OuterLoop(algorithm, optax.adam(1e-3), Sinusoid(), meta_batch=10)
        state, _ = loop.run(loop.init(params, jax.random.key(1)), steps)
        curve = evaluate(algorithm, state.params, Sinusoid(), key=jax.random.key(2), num_tasks=500)
        print(f"{name}: loss after one step {curve.mean('loss')[-1]:.3f}")
    rates = jnp.concatenate([jnp.exp(x).ravel() for x in jax.tree.leaves(state.params[1])])
    print(f"learned step sizes from {rates.min():.4f} to {rates.max():.4f}, where MAML has 0.01")


if __name__ == "__main__":
    main()
