"""Adam whose second moments belong to the initialisation, against Optax's RMSProp that is never begun anew."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from numeric_cases import mlp, mlp_case

from innerloop.algorithms import reptile
from innerloop.engine.inner.inner_loop import InnerLoop
from innerloop.engine.outer.outer_loop import OuterLoop
from innerloop.engine.outer.persistent_adam import FIRST, WithMoments, persistent_adam, with_moments
from innerloop.engine.types import Batch, Task
from innerloop.nn.losses import mean_squared_error

RATE, STEPS, EACH = 0.01, 3, 2


LOSS = mean_squared_error(mlp)


def inner(**settings: Any) -> InnerLoop:
    return InnerLoop(persistent_adam(RATE), STEPS, minibatch=EACH, **settings)


def test_persistent_adam_first_step_matches_closed_form():
    """Second moments start at 1e-3: with the default decay a step is alpha g / sqrt(0.000999 + 0.001 g^2)."""
    params, g = {"w": jnp.zeros(3)}, np.array([1e-3, 0.1, 1.0])
    slope = lambda params, batch: jnp.sum(params["w"] * batch)
    found = reptile(slope, InnerLoop(persistent_adam(RATE), 1)).adapt(with_moments(params), jnp.asarray(g))
    np.testing.assert_allclose(found["w"], -RATE * g / (np.sqrt(0.000999 + 0.001 * g**2) + 1e-8), rtol=1e-12)


def test_serial_reptile_with_full_outer_steps_matches_rmsprop():
    """theta <- theta_k after every task: what RMSProp does that sees all minibatches of all tasks in turn."""
    loss, params, task = mlp_case()
    other = Task(Batch(*jax.tree.map(lambda x: 2.0 - x, task.support)), task.query)
    rule = optax.rmsprop(RATE, decay=0.999, eps=1e-8, initial_scale=FIRST, eps_in_sqrt=False)
    state: Any = rule.init(params)
    slope, meta_grad = jax.jit(jax.grad(loss)), jax.jit(reptile(LOSS, inner()).meta_grad)
    expected = params
    theta = with_moments(params)
    for one in (task, other, task):
        for i in range(STEPS):
            batch = jax.tree.map(lambda x, i=i: x[jnp.arange(i * EACH, (i + 1) * EACH) % len(x)], one.support)
            updates, state = rule.update(slope(expected, batch), state, expected)
            expected = optax.apply_updates(expected, updates)
        gradient, _ = meta_grad(theta, one)
        theta = jax.tree.map(jnp.subtract, theta, gradient)
    same = lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-12)
    jax.tree.map(same, theta.model, expected)
    jax.tree.map(same, theta.moments, state[0].nu)


def test_batched_reptile_applies_outer_step_to_moments():
    """v <- v + epsilon (mean over tasks of v_k - v), as for the weights."""
    _, params, task = mlp_case()

    class Same:
        def sample(self, key: jax.Array) -> Task:
            still = 0 * jax.random.uniform(key)  # one task for ever is refused
            return jax.tree.map(lambda x: x + still, task)

    theta = with_moments(params)
    algorithm = reptile(LOSS, inner())
    loop = OuterLoop(algorithm, optax.sgd(0.5), Same(), meta_batch=2)
    after = loop.run(loop.init(params, jax.random.key(0)), 1)[0].params
    adapted = algorithm.whole_trajectory(theta, task.support).adapted
    half_way = jax.tree.map(lambda a, b: (a + b) / 2, theta, adapted)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-12), after, half_way)


@pytest.mark.parametrize("frozen", ["body", "head"])
def test_frozen_weights_keep_their_moments(frozen: str):
    """Where a layer is held in place, its moments are; the others move."""
    _, params, task = mlp_case()
    theta = with_moments(params)
    algorithm = reptile(LOSS, inner(select=lambda path: not path.startswith(frozen)))
    adapted = algorithm.whole_trajectory(theta, task.support).adapted
    assert isinstance(adapted, WithMoments)
    for part in ("body", "head"):
        kept = part == frozen
        for before, after in ((theta.model, adapted.model), (theta.moments, adapted.moments)):
            pairs = zip(jax.tree.leaves(before[part]), jax.tree.leaves(after[part]), strict=True)
            assert all(bool(jnp.array_equal(a, b)) == kept for a, b in pairs)
