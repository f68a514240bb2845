r"""A new algorithm in one file: Meta-SGD, which learns a step size for every parameter beside the initialisation.

    theta' = theta - alpha * grad L(theta; support)      (alpha has theta's shape)
    g = grad_{theta, alpha} L(theta'; query)

An algorithm is two pure functions of one task, `adapt` and `meta_grad`; batching over tasks, devices, the outer
optimiser and evaluation come from the library. Here the parameters are the pair (theta, log alpha): the logarithm
keeps every step size positive. Li, Zhou, Chen and Li 2017, "Meta-SGD", arXiv 1707.09835.

Run with: python examples/own_algorithm.py
"""

import argparse

import jax
import jax.numpy as jnp
import numpy as np
import optax

from innerloop import (
    MLP,
    Algorithm,
    InnerLoop,
    MetaInfo,
    Sinusoid,
    init,
    maml,
    mean_squared_error,
    meta_steps,
)


def with_rates(params, rate):
    """(theta, log alpha) with the same step size everywhere."""
    return params, jax.tree.map(lambda x: jnp.full_like(x, jnp.log(rate)), params)


def meta_sgd(loss_fn, steps=1):
    """Meta-SGD on `loss_fn`; its parameters are the pair (theta, log alpha)."""

    def descend(params, support):
        theta, log_rates = params

        def step(theta, _):
            loss, grads = jax.value_and_grad(loss_fn)(theta, support)
            return jax.tree.map(lambda x, g, r: x - jnp.exp(r) * g, theta, grads, log_rates), loss

        return jax.lax.scan(step, theta, None, length=steps)

    def adapt(params, support):
        return descend(params, support)[0], params[1]

    def meta_grad(params, task):
        def outer_loss(params):
            theta, losses = descend(params, task.support)
            return loss_fn(theta, task.query), losses

        (loss, losses), grads = jax.value_and_grad(outer_loss, has_aux=True)(params)
        return grads, MetaInfo(loss, losses)

    return Algorithm(adapt, meta_grad)


def check_identity(loss_fn, params):
    """With equal step sizes the gradient in theta must be MAML's: the test every algorithm should begin with."""
    task = Sinusoid().sample(jax.random.key(3))
    (ours, _), _ = meta_sgd(loss_fn).meta_grad(with_rates(params, 0.01), task)
    theirs, _ = maml(loss_fn, InnerLoop(optax.sgd(0.01), steps=1)).meta_grad(params, task)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5), ours, theirs)
    print("with equal step sizes, Meta-SGD's gradient is MAML's")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--smoke", action="store_true", help="a few seconds, to see that it runs")
    steps = 500 if parser.parse_args().smoke else 10_000
    loss_fn, params = mean_squared_error(), MLP(1, 1, key=jax.random.key(0))
    check_identity(loss_fn, params)
    for name, algorithm, start in (
        ("MAML", maml(loss_fn, InnerLoop(optax.sgd(0.01), steps=1)), params),
        ("Meta-SGD", meta_sgd(loss_fn), with_rates(params, 0.01)),
    ):
        optimizer = optax.adam(1e-3)
        state = init(start, optimizer, jax.random.key(1))
        run = meta_steps(algorithm, optimizer, Sinusoid(), meta_batch=10, steps=steps)
        state, info = run(state)
        print(f"{name}: loss after one step {np.mean(info.outer_loss[-100:]):.3f}")
    rates = jnp.concatenate([jnp.exp(x).ravel() for x in jax.tree.leaves(state.params[1])])
    print(f"learnt step sizes from {rates.min():.4f} to {rates.max():.4f}, where MAML has 0.01")


if __name__ == "__main__":
    main()
