"""Collection: what is drawn when, and that an algorithm replays it exactly."""

import itertools
from dataclasses import replace
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from rl_cases import PLAIN, table_policy

from innerloop.algorithms import anil, cavia, imaml, joint, maml, meta_sgd, online_maml, protomaml
from innerloop.engine.inner.inner_loop import InnerLoop
from innerloop.errors import InnerloopError
from innerloop.rl import evaluate_policy, surrogates
from innerloop.rl.baseline import _features
from innerloop.rl.environments import Bandit, Navigation, Oracle, TabularMDP
from innerloop.rl.policies import CategoricalPolicy, GaussianPolicy
from innerloop.rl.rollout import Trajectories, rollout
from innerloop.rl.sample_processor import SampleProcessor
from innerloop.rl.sampler import MetaSampler, sample_meta_batch
from innerloop.rl.updates import MetaObjective

STEPS, K, H = 2, 3, 6
POLICY = GaussianPolicy(2, 2, hidden=(8,), key=jax.random.key(0))
ALGORITHM = maml(surrogates.dice, InnerLoop(optax.sgd(0.4), STEPS))
COLLECTOR = MetaSampler(Navigation(horizon=H), ALGORITHM, SampleProcessor(), K)
KEYS = jax.random.split(jax.random.key(1), 2)
collect = jax.jit(lambda policy, keys: sample_meta_batch(COLLECTOR, policy, keys))


@pytest.fixture(scope="module")
def collected() -> Any:
    return collect(POLICY, KEYS)


def test_each_step_and_query_get_distinct_trajectories(collected: Any):
    task = collected.tasks
    actions = np.concatenate([task.support.actions, task.query.actions], 1)
    assert actions.shape == (2, (STEPS + 1) * K, H, 2)
    rows = actions.reshape(2 * (STEPS + 1) * K, -1)
    assert len(np.unique(rows, axis=0)) == len(rows)


def test_only_query_trajectories_use_the_adapted_policy(collected: Any):
    """The recorded answers are those of theta_0 on the first step's states, of theta_k on the query's."""
    task = collected.tasks
    first = jax.tree.map(lambda x: x[0], task)
    adapted = COLLECTOR.replayed.adapt(POLICY, first.support)
    own = lambda policy, samples: policy(samples.observations).mean
    np.testing.assert_allclose(own(adapted, first.query), first.query.action_dist.mean, atol=1e-5)
    np.testing.assert_allclose(own(POLICY, first.support)[:K], first.support.action_dist.mean[:K], atol=1e-6)
    assert np.abs(own(POLICY, first.query) - first.query.action_dist.mean).max() > 1e-2


def test_trajectories_are_determined_by_keys(collected: Any):
    again = collect(POLICY, KEYS)
    jax.tree.map(np.testing.assert_array_equal, collected, again)
    other = collect(POLICY, KEYS[::-1])
    np.testing.assert_allclose(other[1][::-1], collected[1], rtol=1e-5)
    third = collect(POLICY, jax.random.split(jax.random.key(2), 2))
    assert np.abs(third[1] - collected[1]).max() > 1e-3


def test_anil_adapts_only_the_head(collected: Any):
    task = collected.tasks
    one = jax.tree.map(lambda x: x[0], task)
    head = anil(surrogates.dice, ALGORITHM.inner, head=POLICY.HEAD)
    adapted = replace(COLLECTOR, algorithm=head).replayed.adapt(POLICY, one.support)
    np.testing.assert_array_equal(adapted.mean.body[0].weight, POLICY.mean.body[0].weight)
    assert np.abs(adapted.mean.head.weight - POLICY.mean.head.weight).max() > 0
    assert np.abs(adapted.log_std - POLICY.log_std).max() > 0


@pytest.mark.parametrize("make", [cavia, imaml, meta_sgd, protomaml, online_maml])
def test_unsupported_algorithms_raise(make: Any):
    """The policies that act would not be those that it computes from the data."""
    with pytest.raises(
        InnerloopError, match="acts and adapts by the plain inner loop, .* got .*; use maml, fo"
    ):
        replace(COLLECTOR, algorithm=make(surrogates.log_probability, ALGORITHM.inner))


@pytest.mark.usefixtures("float64")
def test_joint_training_samples_without_adaptation():
    """Its meta-gradient is that of theta's own mean return, here in closed form; at test, it adapts."""
    policy, arms = table_policy(1, 3), jnp.array([0.9, 0.2, 0.4])
    sampler = MetaSampler(Bandit(3), joint(surrogates.dice, InnerLoop(optax.sgd(5.0), 1)), PLAIN, 100_000)
    found = jax.jit(lambda policy: sampler.collect(policy, KEYS[:1], arms[None]))(policy)
    assert found.returns.shape == (1, 1)
    grads, _ = sampler.replayed.meta_grad(policy, jax.tree.map(lambda x: x[0], found.tasks))
    chance = jax.nn.softmax(policy(jnp.ones((1, 1))).logits[0])
    np.testing.assert_allclose(grads.logits.head.bias, -chance * (arms - chance @ arms), atol=0.01)
    objective = MetaObjective(sampler.replayed)
    jax.tree.map(np.testing.assert_array_equal, objective.adapt(policy, None), policy)
    tested = evaluate_policy(replace(sampler, trajectories=50), policy, key=KEYS[0], num_tasks=25)
    assert (tested.steps, tested.tasks) == ((0, 1), 25)
    before, after = tested.mean("return")
    assert after - before > 0.1 > tested.ci95("return").max() > 0


def test_inner_rule_keeps_state_between_steps():
    """The second step of a falling schedule is smaller: here it does not move at all."""
    rule = optax.sgd(optax.piecewise_constant_schedule(0.4, {1: 0.0}))
    collector = replace(COLLECTOR, algorithm=ALGORITHM.with_inner(rule=rule))
    worlds = jax.vmap(collector.environment.sample_task)(KEYS)
    rolled = jax.jit(lambda p: collector.rollouts(p, KEYS, worlds))(POLICY)
    seen = rolled[0].observations[0]
    assert len(rolled) == STEPS + 1
    # The policies of the second and third rollout answer alike where they saw the same: at the origin.
    np.testing.assert_array_equal(rolled[1].action_dist.mean[:, :, 0], rolled[2].action_dist.mean[:, :, 0])
    assert np.abs(rolled[0].action_dist.log_std - rolled[1].action_dist.log_std).max() > 1e-4
    assert seen.shape == (K, H, 2)


def test_navigation_by_hand():
    world = Navigation()
    goal = jnp.array([0.1, 0.05])
    state, seen = world.reset(jax.random.key(0), goal)
    np.testing.assert_array_equal(seen, [0, 0])
    t = world.step(jax.random.key(0), state, jnp.array([5.0, -0.5]))
    np.testing.assert_allclose(t.observation, [0.1, -0.05], atol=1e-7)
    np.testing.assert_allclose(t.reward, -0.1, atol=1e-7)
    assert not t.done
    there = world.step(jax.random.key(0), t.state, jnp.array([0.05, 0.95]))
    assert there.done
    squared = Navigation("squared").step(jax.random.key(0), state, jnp.array([5.0, -0.5]))
    np.testing.assert_allclose(squared.reward, -0.01, atol=1e-7)


def test_steps_after_the_end_are_masked():
    """A goal at the origin and a policy that stays there: one step, and the trajectory is over."""
    still = jax.tree.map(jnp.zeros_like, POLICY)
    still = jax.tree.map(lambda p, x: x - 20 if p.shape == (2,) and p is still.log_std else x, still, still)
    t = jax.jit(lambda k: rollout(Navigation(horizon=H), still, k, jnp.zeros(2), K))(jax.random.key(0))
    np.testing.assert_array_equal(t.mask, np.eye(H)[np.zeros(K, int)])
    np.testing.assert_allclose(t.returns(), 0, atol=1e-4)
    samples = SampleProcessor(normalize=False)(t)
    assert not np.any(samples.advantages[:, 1:])
    np.testing.assert_allclose(samples.weights.sum(), 1, rtol=1e-6)


def test_rewards_after_the_end_are_zero():
    """One step to the right is the goal; the steps beyond it lead away, and would be paid."""
    still = jax.tree.map(jnp.zeros_like, POLICY)
    ahead = eqx.tree_at(
        lambda p: (p.mean.head.bias, p.log_std), still, (jnp.array([1.0, 0.0]), jnp.full(2, -20.0))
    )
    t = jax.jit(lambda k: rollout(Navigation(horizon=H), ahead, k, jnp.array([0.105, 0.0]), K))(KEYS[0])
    np.testing.assert_array_equal(t.mask, np.eye(H)[np.zeros(K, int)])
    np.testing.assert_allclose(t.rewards[:, 0], -0.005, atol=1e-6)
    np.testing.assert_array_equal(t.rewards[:, 1:], 0)
    np.testing.assert_allclose(t.returns(), -0.005, atol=1e-6)


@pytest.mark.parametrize(
    ("away", "over"), [((0.0, 0.0099), True), ((0.0, 0.0101), False), ((0.0101, 0.0), False)]
)
def test_goal_is_reached_within_0_01_in_both_coordinates(away: tuple[float, float], over: bool):
    world = Navigation()
    state, _ = world.reset(KEYS[0], jnp.array([0.3, -0.2]) + jnp.array(away))
    state = state._replace(position=jnp.array([0.3, -0.2]))
    assert bool(world.step(KEYS[0], state, jnp.zeros(2)).done) is over


def test_each_policy_draws_independent_noise():
    """At the origin, where all begin: what was drawn, in deviations from the mean, differs from policy to policy."""
    worlds = jax.vmap(COLLECTOR.environment.sample_task)(KEYS)
    rolled = jax.jit(lambda p: COLLECTOR.rollouts(p, KEYS, worlds))(POLICY)
    noise = [
        np.asarray((t.actions - t.action_dist.mean) / jnp.exp(t.action_dist.log_std))[:, :, 0] for t in rolled
    ]
    assert len(noise) == STEPS + 1
    for first, second in itertools.combinations(noise, 2):
        assert np.abs(first - second).min() > 1e-4


@pytest.mark.usefixtures("float64")
def test_baseline_is_fitted_to_discounted_returns():
    """A_t = R_t - V(s_t), both of the discounted returns, against NumPy's ridge regression."""
    rewards = jnp.cos(jnp.arange(3 * H, dtype=float)).reshape(3, H)
    seen = jnp.sin(jnp.arange(6 * H, dtype=float)).reshape(3, H, 2)
    t = Trajectories(seen, POLICY(seen), seen, rewards, jnp.ones((3, H)))
    found = SampleProcessor(discount=0.7, normalize=False)(t).advantages
    powers = np.triu(0.7 ** (np.arange(H)[None] - np.arange(H)[:, None]))
    returns = np.asarray(rewards) @ powers.T
    phi = np.asarray(_features(seen)).reshape(3 * H, -1)
    w = np.linalg.solve(phi.T @ phi + 1e-5 * np.eye(phi.shape[1]), phi.T @ returns.ravel())
    np.testing.assert_allclose(found, returns - (phi @ w).reshape(3, H), atol=1e-8)


def test_oracle_observes_the_goal():
    world = Oracle(Navigation(horizon=H))
    policy = GaussianPolicy(world.observation_size, 2, hidden=(4,), key=jax.random.key(0))
    goal = jnp.array([0.3, -0.2])
    t = rollout(world, policy, jax.random.key(0), goal, K)
    np.testing.assert_allclose(t.observations[..., 2:], np.broadcast_to(goal, (K, H, 2)))


def test_tabular_mdp_follows_its_tables():
    world = TabularMDP(2, 2, horizon=40, noise=0.1)
    task = world.sample_task(jax.random.key(0))
    policy = CategoricalPolicy(2, 2, hidden=(), key=jax.random.key(0))
    t = jax.jit(lambda k: rollout(world, policy, k, task, 200))(jax.random.key(0))
    states, actions = np.asarray(t.observations.argmax(-1)), np.asarray(t.actions)
    assert not states[:, 0].any()
    for s in range(2):
        for a in range(2):
            followed = states[:, 1:][(states[:, :-1] == s) & (actions[:, :-1] == a)]
            assert abs(followed.mean() - float(task.transitions[s, a, 1])) < 0.05
            paid = np.asarray(t.rewards)[(states == s) & (actions == a)]
            assert abs(paid.mean() - float(task.rewards[s, a])) < 0.02


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: replace(COLLECTOR, trajectories=1), r"MetaSampler.trajectories: must be 2 or more, got 1"),
        (lambda: Navigation(horizon=0), r"Navigation.horizon: must be 1 or more, got 0"),
    ],
)
def test_invalid_settings_raise(make: Any, message: str):
    with pytest.raises(InnerloopError, match=message):
        make()
