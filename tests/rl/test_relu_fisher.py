"""The fast product against the one by differentiation, to rounding."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.flatten_util import ravel_pytree

from innerloop.algorithms import maml
from innerloop.config.presets.registry import preset
from innerloop.engine.inner import InnerLoop
from innerloop.rl import surrogates
from innerloop.rl.environments import Navigation
from innerloop.rl.policies import MIN_LOG_STD, GaussianPolicy
from innerloop.rl.sample_processor import SampleProcessor
from innerloop.rl.sampler import MetaSampler, sample_meta_batch
from innerloop.rl.trpo import fisher, relu_fisher
from innerloop.training.reinforcement import RLExperiment

RATE = 0.5


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("name", ["dice", "log_probability", "ratio"])
@pytest.mark.parametrize("bound", [False, True], ids=["free", "one at its bound"])
def test_it_is_the_product_by_differentiation(name: str, bound: bool):
    """On every direction, with biases that are not zero; a standard deviation below its bound does not move."""
    surrogate = getattr(surrogates, name)
    policy = GaussianPolicy(2, 2, hidden=(4, 3), key=jax.random.key(0))
    flat, back = ravel_pytree(policy)
    policy = back(flat + 0.3 * jnp.sin(jnp.arange(flat.size)))
    if bound:
        policy = eqx.tree_at(lambda p: p.log_std, policy, jnp.array([0.1, MIN_LOG_STD - 1]))
    collector = MetaSampler(
        Navigation(horizon=4), maml(surrogate, InnerLoop(optax.sgd(RATE), 1)), SampleProcessor(), 3
    )
    adapt = collector.replayed.adapt

    @jax.jit
    def products(policy: Any) -> Any:
        tasks = sample_meta_batch(collector, policy, jax.random.split(jax.random.key(1), 2)).tasks
        ways = (
            fisher.fisher(adapt, policy, tasks),
            relu_fisher.fisher(surrogate, adapt, RATE, policy, tasks),
        )
        flattened = lambda way: jax.vmap(lambda v: ravel_pytree(way(back(v)))[0])
        return [flattened(way)(jnp.eye(flat.size)) for way in ways]

    plain, fast = products(policy)
    if bound:
        assert ravel_pytree(policy)[0][-1] == policy.log_std[1]
        np.testing.assert_array_equal(plain[-1], 0)
    np.testing.assert_allclose(fast, plain, atol=1e-10 * np.abs(plain).max())


def test_only_what_it_is_true_of_takes_it():
    assert RLExperiment(preset("navigation-maml-trpo")).curvature is not None
    for other in ("navigation-anil-trpo", "navigation-fomaml-trpo", "navigation-oracle"):
        assert RLExperiment(preset(other)).curvature is None
