"""Derivatives of the surrogates against those of the exact return, by writing down every trajectory."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.flatten_util import ravel_pytree
from rl_cases import PLAIN, every_trajectory, mean_return, table_policy

from innerloop.algorithms import maml
from innerloop.engine.inner.inner_loop import InnerLoop
from innerloop.engine.types import Task
from innerloop.rl import surrogates
from innerloop.rl.environments import Bandit, TabularMDP
from innerloop.rl.environments.tabular import TabularTask
from innerloop.rl.sampler import MetaSampler

pytestmark = pytest.mark.usefixtures("float64")
SECOND_ORDER_RIGHT = {"bandit": {"dice", "ratio"}, "process": {"dice"}}
CASES = {"bandit": (1, 4, 1), "process": (2, 2, 3)}
ALPHA = 2.0


def case(name: str) -> tuple[Any, TabularTask, int]:
    states, actions, horizon = CASES[name]
    task = TabularMDP(states, actions, horizon).sample_task(jax.random.key(2))
    return table_policy(states, actions), task, horizon


def all_samples(policy: Any, task: TabularTask, horizon: int) -> Any:
    """Every trajectory as samples, weighted by its probability: sums over them are expectations."""
    trajectories, chance = every_trajectory(policy, task, horizon)
    samples = PLAIN(trajectories)
    return samples._replace(weights=jnp.broadcast_to(chance[:, None] / horizon, samples.weights.shape))


def derivatives(f: Any, policy: Any) -> tuple[np.ndarray, np.ndarray]:
    flat, back = ravel_pytree(policy)
    of_flat = lambda x: f(back(x))
    return np.asarray(jax.jit(jax.grad(of_flat))(flat)), np.asarray(jax.jit(jax.hessian(of_flat))(flat))


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("surrogate", ["dice", "log_probability", "ratio"])
def test_expected_derivatives_of_each_surrogate(surrogate: str, name: str):
    """The first is right for all; the second for DiCE always, for the ratio where one action decides."""
    policy, task, horizon = case(name)
    samples = all_samples(policy, task, horizon)
    loss = getattr(surrogates, surrogate)
    first, second = derivatives(lambda p: -loss(p, samples), policy)
    true_first, true_second = derivatives(lambda p: mean_return(p, task, horizon), policy)
    np.testing.assert_allclose(first, true_first, atol=1e-12)
    off = np.abs(second - true_second).max() / np.abs(true_second).max()
    assert (off < 1e-10) == (surrogate in SECOND_ORDER_RIGHT[name])
    assert off < 1e-10 or off > 0.05


def test_dice_with_baseline_keeps_exact_second_derivative():
    """Advantages instead of returns: what the loaded form is for. The classical form of DiCE would lose this."""
    policy, task, horizon = case("process")
    samples = all_samples(policy, task, horizon)
    values = jnp.array([3.0, -2.0])[samples.observations.argmax(-1)] * jnp.arange(1, horizon + 1)
    samples = samples._replace(advantages=samples.advantages - values)
    _, second = derivatives(lambda p: -surrogates.dice(p, samples), policy)
    _, true = derivatives(lambda p: mean_return(p, task, horizon), policy)
    np.testing.assert_allclose(second, true, atol=1e-12)


def test_dice_treats_trajectories_in_a_lane_separately():
    """One after the other, each begins anew: the derivatives are those of trajectories in lanes of their own."""
    policy, task, horizon = case("process")
    apart = all_samples(policy, task, horizon)
    join = lambda x: x.reshape(x.shape[0] // 2, 2 * x.shape[1], *x.shape[2:])
    together = jax.tree.map(join, apart)
    ends = jnp.tile(
        (jnp.arange(2 * horizon) % horizon == horizon - 1).astype(float), (len(together.weights), 1)
    )
    together = together._replace(ends=ends)
    for found, expected in zip(
        derivatives(lambda p: surrogates.dice(p, together), policy),
        derivatives(lambda p: surrogates.dice(p, apart), policy),
        strict=True,
    ):
        np.testing.assert_allclose(found, expected, atol=1e-12)


def test_dice_third_derivative_is_exact():
    policy, task, horizon = case("process")
    flat, back = ravel_pytree(policy)
    samples = all_samples(policy, task, horizon)
    third = lambda f: jax.jit(jax.jacfwd(jax.hessian(lambda x: f(back(x)))))(flat)
    of_dice = third(lambda p: -surrogates.dice(p, samples))
    np.testing.assert_allclose(of_dice, third(lambda p: mean_return(p, task, horizon)), atol=1e-12)


def exact_meta_gradient(policy: Any, task: TabularTask, horizon: int) -> np.ndarray:
    """grad J(theta + alpha grad J(theta))."""

    def objective(policy: Any) -> Any:
        inner = jax.grad(mean_return)(policy, task, horizon)
        return mean_return(jax.tree.map(lambda p, g: p + ALPHA * g, policy, inner), task, horizon)

    return np.asarray(ravel_pytree(jax.jit(jax.grad(objective))(policy))[0])


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("surrogate", ["dice", "log_probability", "ratio"])
def test_meta_gradient_bias_of_each_surrogate(surrogate: str, name: str):
    """Sampled by the collector, through MAML's own file: the mean against the exact one, in its own standard errors.

    The inner loop sees many trajectories, so that its step is the exact one but for noise that averages out.
    """
    policy, task, horizon = case(name)
    states, actions, _ = CASES[name]
    loss = getattr(surrogates, surrogate)
    inner = InnerLoop(optax.sgd(ALPHA), 1)
    algorithm = maml(loss, inner, outer_loss_fn=surrogates.ratio)
    collector = MetaSampler(TabularMDP(states, actions, horizon), algorithm, PLAIN, trajectories=2000)
    algorithm = collector.replayed
    repeats = 40
    worlds = jax.tree.map(lambda x: jnp.broadcast_to(x, (repeats, *x.shape)), task)

    @jax.jit
    def estimates(keys: Any) -> Any:
        tasks, *_ = collector.collect(policy, keys, worlds)
        return jax.vmap(lambda t: -ravel_pytree(algorithm.meta_grad(policy, t)[0])[0])(tasks)

    found = np.asarray(estimates(jax.random.split(jax.random.key(7), repeats)))
    error = found.std(0, ddof=1) / np.sqrt(repeats)
    away = np.abs(found.mean(0) - exact_meta_gradient(policy, task, horizon)) / error
    if surrogate in SECOND_ORDER_RIGHT[name]:
        assert away.max() < 4
    else:
        assert away.max() > 8  # the bias, many standard errors off


def test_bandit_meta_gradient_bias():
    """The relative error of the expected meta-gradient: none with DiCE, a sixth or more without."""
    policy, task, horizon = case("bandit")
    true = exact_meta_gradient(policy, task, horizon)
    off = {}
    for name in ("dice", "log_probability"):
        loss = getattr(surrogates, name)
        support = all_samples(policy, task, horizon)
        algorithm = maml(loss, InnerLoop(optax.sgd(ALPHA), 1), outer_loss_fn=surrogates.ratio)
        adapted = algorithm.adapt(policy, support)
        query = all_samples(adapted, task, horizon)
        grads = -ravel_pytree(algorithm.meta_grad(policy, Task(support, query))[0])[0]
        off[name] = np.linalg.norm(grads - true) / np.linalg.norm(true)
    assert off["dice"] < 1e-12
    assert off["log_probability"] > 0.1


def test_clipped_equals_ratio_within_clip_range():
    policy, task, horizon = case("process")
    samples = all_samples(policy, task, horizon)
    wide, ratio = surrogates.clipped(100.0), surrogates.ratio
    other = jax.tree.map(lambda x: x + 0.3, policy)
    np.testing.assert_allclose(wide(other, samples), ratio(other, samples), atol=1e-12)


def test_clipping_by_hand():
    """Ratio 2: worth 1.2 A where A > 0, 2 A where A < 0. Ratio 1/2: A / 2 where A > 0, 0.8 A where A < 0."""
    policy, task, horizon = case("bandit")
    samples = jax.tree.map(lambda x: x[:1], all_samples(policy, task, horizon))
    clipped = surrogates.clipped(0.2)
    for ratio, advantage, worth in ((2, 3.0, 3.6), (2, -3.0, -6.0), (0.5, 3.0, 1.5), (0.5, -3.0, -2.4)):
        judged = samples._replace(
            advantages=jnp.full((1, 1), advantage),
            weights=jnp.ones((1, 1)),
            log_probs=samples.log_probs - jnp.log(ratio),
        )
        np.testing.assert_allclose(clipped(policy, judged), -worth, atol=1e-12)


def test_bandit_rewards_match_arm_probabilities():
    bandit = Bandit(2)
    task = jnp.array([0.2, 0.9])
    keys = jax.random.split(jax.random.key(0), 4000)
    pay = lambda arm: jax.vmap(lambda k: bandit.step(k, task, jnp.array(arm)).reward)(keys).mean()
    assert abs(pay(0) - 0.2) < 0.03
    assert abs(pay(1) - 0.9) < 0.03
