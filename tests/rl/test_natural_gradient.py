"""TRPO's step against the natural gradient in closed form, and the divergence against its exact Hessian."""

from functools import cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.flatten_util import ravel_pytree

from innerloop.algorithms import fomaml, maml
from innerloop.engine.inner.inner_loop import InnerLoop
from innerloop.parallel.mesh import REPLICATED, task_mesh
from innerloop.rl import surrogates
from innerloop.rl.distributions import Categorical, Normal
from innerloop.rl.environments import Navigation
from innerloop.rl.policies import GaussianPolicy
from innerloop.rl.sample_processor import SampleProcessor
from innerloop.rl.sampler import MetaSampler, sample_meta_batch
from innerloop.rl.trpo.fisher import fisher, mean_kl
from innerloop.rl.trpo.natural_gradient import TrustRegion, conjugate_gradients, natural_step
from innerloop.rl.updates import MetaObjective

pytestmark = pytest.mark.usefixtures("float64")


def quadratic(seed: int = 0, size: int = 6) -> tuple[Any, Any, Any]:
    """A linear loss g.x under a divergence x^T F x / 2."""
    rng = np.random.default_rng(seed)
    root = rng.normal(size=(size, size))
    return jnp.array(rng.normal(size=size)), jnp.array(root @ root.T + np.eye(size)), jnp.zeros(size)


def step(region: TrustRegion, loss: Any = None) -> tuple[Any, Any, Any]:
    g, f, start = quadratic()
    loss = (lambda x: g @ x) if loss is None else loss
    judge = lambda x: (loss(x), 0.5 * x @ f @ x)
    return natural_step(start, g, loss(start), lambda v: f @ v, judge, region), g, f


def test_step_matches_closed_form_natural_gradient():
    """-sqrt(2 delta / g F^-1 g) F^-1 g, whose divergence is delta itself, but for the damping."""
    region = TrustRegion(max_kl=0.02, damping=1e-9)
    moved, g, f = step(region)
    natural = np.linalg.solve(f, g)
    wanted = -np.sqrt(2 * 0.02 / (g @ natural)) * natural
    np.testing.assert_allclose(moved.params, wanted, rtol=1e-7)
    np.testing.assert_allclose(moved.kl, 0.02, rtol=1e-7)
    assert float(moved.length) == 1


def test_half_step_size_halves_the_step():
    """So a fourth of the divergence: what a step size that falls over the run asks for."""
    g, f, start = quadratic()
    judge = lambda x: (g @ x, 0.5 * x @ f @ x)
    region = TrustRegion(max_kl=0.02, damping=1e-9)
    whole, half = (
        natural_step(start, g, jnp.zeros(()), lambda v: f @ v, judge, region, s) for s in (1.0, 0.5)
    )
    np.testing.assert_allclose(half.params, 0.5 * whole.params, rtol=1e-9)
    np.testing.assert_allclose(half.kl, 0.005, rtol=1e-7)


def test_conjugate_gradients_solve_and_then_stay_constant():
    """Exact after as many products as there are unknowns; further ones, and a zero right side, change nothing."""
    g, f, start = quadratic()
    solve = lambda wanted, products: conjugate_gradients(lambda v: f @ v, wanted, products)
    np.testing.assert_allclose(solve(g, 6), np.linalg.solve(f, g), rtol=1e-8)
    np.testing.assert_allclose(solve(g, 40), np.linalg.solve(f, g), rtol=1e-8)
    np.testing.assert_array_equal(solve(start, 5), start)
    np.testing.assert_allclose(solve(g, 1), (g @ g) / (g @ f @ g) * g, rtol=1e-12)


def test_line_search_backtracks_into_trust_region():
    """Where the curvature was underestimated ten times, the second try is within the divergence allowed."""
    g, f, start = quadratic()
    judge = lambda x: (g @ x, 5.0 * x @ f @ x)
    region = TrustRegion(max_kl=0.02, damping=1e-9)
    moved = natural_step(start, g, jnp.zeros(()), lambda v: f @ v, judge, region)
    np.testing.assert_allclose(moved.length, 0.95 / np.sqrt(10), rtol=1e-6)
    np.testing.assert_allclose(moved.kl, 0.95**2 * 0.02, rtol=1e-6)


def test_line_search_stops_once_loss_decreases():
    """A bowl around the start, such that the loss falls for r < 2 / 3 alone: 0.8^2 is the first."""
    g, f, _ = quadratic()
    natural = jnp.linalg.solve(f, g)
    full = jnp.sqrt(0.04 / (g @ natural)) * natural
    bowl = 1.5 * (g @ full) / (full @ full)
    moved, _, _ = step(TrustRegion(max_kl=0.02, damping=1e-9), lambda x: g @ x + bowl * x @ x)
    np.testing.assert_allclose(moved.length, 0.64, rtol=1e-7)
    assert float(moved.loss) < 0


def test_failed_line_search_keeps_parameters():
    moved, _, _ = step(TrustRegion(), lambda x: jnp.where(jnp.any(x != 0), jnp.nan, 0.0))
    assert not np.any(moved.params)
    assert float(moved.length) == 0
    assert float(moved.loss) == 0


@cache
def small() -> tuple[MetaSampler, GaussianPolicy, Any, Any]:
    policy = GaussianPolicy(2, 2, hidden=(3,), activation="tanh", key=jax.random.key(0))
    surrogate = surrogates.dice
    collector = MetaSampler(
        Navigation(horizon=3), maml(surrogate, InnerLoop(optax.sgd(0.3), 1)), SampleProcessor(), 3
    )
    draw = jax.jit(lambda p: sample_meta_batch(collector, p, jax.random.split(jax.random.key(1), 3))[0])
    tasks = draw(policy)
    return collector, policy, tasks, collector.replayed.adapt


@pytest.mark.parametrize("make", [maml, fomaml])
def test_fisher_product_matches_hessian_of_mean_kl(make: Any):
    """Against jax.hessian of the mean divergence at the adapted policies: through the inner loop, or not for FOMAML."""
    collector, policy, tasks, adapt = small()
    flat, back = ravel_pytree(policy)
    shifts = jax.jit(jax.vmap(lambda s: ravel_pytree(adapt(policy, s))[0] - flat))(tasks.support)

    def divergence(x: Any) -> Any:
        def one(task: Any, shift: Any) -> Any:
            adapted = adapt(back(x), task.support) if make is maml else back(x + shift)
            return mean_kl(task.query.action_dist, adapted(task.query.observations), task.query)

        return jax.vmap(one)(tasks, shifts).mean()

    objective = MetaObjective(make(surrogates.dice, collector.inner))

    @jax.jit
    def products(policy: Any) -> Any:
        product = fisher(objective.adapt, policy, tasks)
        return jax.vmap(lambda v: ravel_pytree(product(back(v)))[0])(jnp.eye(flat.size))

    np.testing.assert_allclose(jax.jit(jax.grad(divergence))(flat), 0, atol=1e-12)
    np.testing.assert_allclose(products(policy), jax.jit(jax.hessian(divergence))(flat), atol=1e-10)


def test_mean_kl_direction_and_weights():
    """KL(old || new) in this order, and weighted; N(0, 1) from N(1, 2) and N(1, 2) from N(0, 1) differ."""
    _, policy, tasks, adapt = small()
    one = jax.tree.map(lambda x: x[0], tasks)
    shape = (3, 3, 2)
    old, new = (
        Normal(jnp.zeros(shape), jnp.zeros(shape)),
        Normal(jnp.ones(shape), jnp.log(jnp.full(shape, 2.0))),
    )
    forth, back = 2 * (np.log(2) + 0.25 - 0.5), 2 * (-np.log(2) + 0.5 * (4 + 1) - 0.5)
    weights = jnp.arange(9.0).reshape(3, 3)
    np.testing.assert_allclose(mean_kl(old, new, one.query._replace(weights=weights)), 36 * forth, rtol=1e-12)
    np.testing.assert_allclose(mean_kl(new, old, one.query._replace(weights=weights)), 36 * back, rtol=1e-12)


def test_judged_returns_mean_query_loss_and_kl():
    """The query loss, and the divergence of the adapted from the acting policies, task by task."""
    collector, policy, tasks, adapt = small()
    moved = jax.tree.map(lambda x: x + 0.3, policy)
    losses, kls = [], []
    for i in range(3):
        task = jax.tree.map(lambda x, i=i: x[i], tasks)
        adapted = adapt(moved, task.support)
        answer = adapted(task.query.observations)
        losses.append(surrogates.dice(adapted, task.query))
        kls.append(jnp.sum(task.query.weights * task.query.action_dist.kl(answer)))
    objective = MetaObjective(collector.replayed)
    judged = jax.jit(
        jax.shard_map(
            objective.judged, mesh=task_mesh(1), in_specs=(REPLICATED, REPLICATED), out_specs=REPLICATED
        )
    )
    loss, kl = judged(moved, tasks)
    np.testing.assert_allclose(loss, np.mean(losses), rtol=1e-10)
    np.testing.assert_allclose(kl, np.mean(kls), rtol=1e-10)


def test_kl_and_log_prob_by_hand():
    """KL of N(0, 1) from N(1, 2): log 2 + (1 + 1) / 8 - 1/2; of (1/2, 1/2) from (1/4, 3/4)."""
    normal = Normal(jnp.zeros(1), jnp.zeros(1)).kl(Normal(jnp.ones(1), jnp.log(jnp.array([2.0]))))
    np.testing.assert_allclose(normal, np.log(2) + 0.25 - 0.5, rtol=1e-12)
    categorical = Categorical(jnp.zeros(2)).kl(Categorical(jnp.log(jnp.array([1.0, 3.0]))))
    np.testing.assert_allclose(categorical, 0.5 * np.log(2) + 0.5 * np.log(2 / 3), rtol=1e-12)
    answer = Normal(jnp.array([[1.0, 2.0]]), jnp.log(jnp.array([[0.5, 2.0]])))
    z = np.array([0.4 / 0.5, -1.0 / 2])
    density = np.exp(-0.5 * z @ z) / (2 * np.pi * 1.0)
    np.testing.assert_allclose(np.exp(answer.log_prob(jnp.array([[1.4, 1.0]]))), [density], rtol=1e-12)
