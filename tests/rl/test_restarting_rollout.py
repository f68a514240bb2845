"""Lanes: whole trajectories one after the other, none favoured for its length, judged as if they lay apart."""

from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.flatten_util import ravel_pytree

from innerloop.algorithms import maml
from innerloop.config.presets.registry import preset
from innerloop.engine.inner.inner_loop import InnerLoop
from innerloop.rl import surrogates
from innerloop.rl.environments import Transition
from innerloop.rl.evaluate import example_rollouts
from innerloop.rl.policies import GaussianPolicy
from innerloop.rl.restarting_rollout import restarting_rollout
from innerloop.rl.rollout import Trajectories, rollout, steps_since_start
from innerloop.rl.sample_processor import SampleProcessor
from innerloop.rl.sampler import MetaSampler
from innerloop.training.experiments.reinforcement import RLExperiment

H, K = 5, 7


@dataclass(frozen=True)
class Stroll:
    """A walk that ends at every step with probability `task`, and begins anywhere."""

    horizon: int = H
    observation_size: int = 2
    action_size: int = 2
    discrete: bool = False

    def sample_task(self, key: Any) -> Any:
        return jnp.full((), 0.4)

    def task_vector(self, task: Any) -> Any:
        return task[None]

    def reset(self, key: Any, task: Any) -> tuple[Any, Any]:
        seen = jax.random.normal(key, (2,))
        return (seen, task), seen

    def step(self, key: Any, state: Any, action: Any) -> Transition:
        seen = 0.8 * state[0] + 0.3 * action
        return Transition((seen, state[1]), seen, -jnp.sum(seen**2), jax.random.uniform(key) < state[1])


POLICY = GaussianPolicy(2, 2, hidden=(4,), activation="tanh", key=jax.random.key(0))


def drawn(chance: float = 0.4, count: int = K) -> Trajectories:
    """Lanes of trajectories that end with this probability at every step."""
    return jax.jit(lambda t: restarting_rollout(Stroll(), POLICY, jax.random.key(1), t, count))(
        jnp.asarray(chance)
    )


def apart(t: Trajectories) -> tuple[Trajectories, np.ndarray]:
    """Every trajectory on its own, and `[trajectory, step] -> (lane, time)`; beyond the end, the lane's first step."""
    where = []
    for lane, (mask, ends) in enumerate(zip(np.asarray(t.mask), np.asarray(t.ends), strict=True)):
        begin = 0
        for end in np.flatnonzero(ends):
            where.append([(lane, time) for time in range(begin, end + 1)] + [(-1, 0)] * (H - 1 - end + begin))
            begin = end + 1
        assert begin == mask.sum()
    index = np.array(where)
    taken = jnp.asarray(index[..., 0] >= 0, t.mask.dtype)
    own = jax.tree.map(lambda x: x[index[..., 0], index[..., 1]], t)
    return own._replace(mask=taken, rewards=own.rewards * taken, ends=None), index


def test_rollout_without_early_ends_matches_plain_rollout():
    found, plain = drawn(0.0), rollout(Stroll(), POLICY, jax.random.key(1), jnp.zeros(()), K)
    assert found.mask.shape == (K, 2 * H - 1)
    np.testing.assert_array_equal(found.mask.sum(1), np.full(K, H))
    for name in ("observations", "actions", "rewards", "mask"):
        np.testing.assert_allclose(getattr(found, name)[:, :H], getattr(plain, name), rtol=1e-5, atol=1e-6)


def test_trajectories_are_complete_and_start_before_horizon():
    t = drawn(count=200)
    own, index = apart(t)
    assert t.ends is not None
    lengths = np.asarray(own.mask.sum(1))
    assert set(lengths) == set(range(1, H + 1))
    begins, lane = index[:, 0, 1], index[:, 0, 0]
    assert begins.max() == H - 1
    assert (np.asarray(t.mask).sum(1) >= H).all()
    assert t.ends is not None
    np.testing.assert_array_equal(np.asarray(steps_since_start(t.ends))[lane, begins], 0)
    last = index[np.arange(len(index)), lengths.astype(int) - 1]
    np.testing.assert_array_equal(np.asarray(steps_since_start(t.ends))[last[:, 0], last[:, 1]], lengths - 1)
    starts = np.asarray(t.observations)[lane, begins]
    assert len(np.unique(starts, axis=0)) == len(starts)


def test_trajectory_lengths_are_unbiased():
    """Wald's identity: long trajectories are as frequent as they should be, unless the unfinished are dropped."""
    t = drawn(count=4000)
    own, index = apart(t)
    lengths, lane = np.asarray(own.mask.sum(1)), index[:, 0, 0]
    expected = 0.6 ** (H - 1)  # a trajectory goes on to the horizon
    off = lambda kept: np.bincount(lane, ((lengths == H) - expected) * kept, 4000)
    error = lambda x: x.mean() / (x.std() / np.sqrt(len(x)))
    assert abs(error(off(np.ones_like(lengths)))) < 3.5
    assert error(off(index[:, 0, 1] + lengths <= H)) < -10


def test_returns_use_first_trajectory_of_each_lane():
    t = drawn()
    own, index = apart(t)
    first = index[:, 0, 1] == 0
    np.testing.assert_allclose(t.returns(), own.rewards.sum(1)[first], rtol=1e-6)
    np.testing.assert_array_equal(t.first().mask.sum(1), own.mask.sum(1)[first])
    assert own.first() is own


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize(
    "judge",
    [SampleProcessor(), SampleProcessor(gae_lambda=0.7, normalize=False)],
    ids=["lambda 1", "lambda 0.7"],
)
def test_advantages_match_separate_trajectories(judge: SampleProcessor):
    t = jax.tree.map(lambda x: x.astype(float), drawn())
    own, index = apart(t)
    together, alone = jax.jit(judge)(t), jax.jit(judge)(own)
    taken = np.asarray(own.mask) > 0
    for part in ("advantages", "weights"):
        found = np.asarray(getattr(together, part))[index[..., 0], index[..., 1]]
        wanted = np.asarray(getattr(alone, part))
        np.testing.assert_allclose(found[taken], wanted[taken], rtol=1e-9, atol=1e-12)


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("name", ["dice", "log_probability", "ratio"])
def test_surrogate_derivatives_match_separate_trajectories(name: str):
    """The surrogate's first derivative, and its second along a direction, at the policy that acted."""
    policy = jax.tree.map(lambda x: x.astype(float), POLICY)
    t = jax.tree.map(lambda x: x.astype(float), drawn())
    t = t._replace(action_dist=policy(t.observations))
    flat, back = ravel_pytree(policy)
    direction = jnp.cos(jnp.arange(flat.size))

    @jax.jit
    def derivatives(samples: Any) -> Any:
        slope = jax.grad(lambda x: getattr(surrogates, name)(back(x), samples))
        return jax.jvp(slope, (flat,), (direction,))

    for found, wanted in zip(*(derivatives(SampleProcessor()(x)) for x in (t, apart(t)[0])), strict=True):
        np.testing.assert_allclose(found, wanted, rtol=1e-8, atol=1e-10)
        assert np.abs(wanted).max() > 1e-3


def test_sampler_and_example_rollouts_support_restarts():
    """An update learns from all of a lane; what is shown is its first trajectory."""
    algorithm = maml(surrogates.dice, InnerLoop(optax.sgd(0.3), 1))
    one = MetaSampler(Stroll(), algorithm, SampleProcessor(), K, restarts=True)
    keys, worlds = jax.random.split(jax.random.key(2), 2), jnp.full(2, 0.4)
    before, after = jax.jit(lambda p: one.rollouts(p, keys, worlds))(POLICY)
    assert before.mask.shape == (2, K, 2 * H - 1)
    assert (before.mask.sum(-1) >= H).all()
    assert np.abs(after.action_dist.log_std[:, 0, 0] - before.action_dist.log_std[:, 0, 0]).min() > 0
    _, shown = example_rollouts(replace(one, trajectories=3), POLICY, jax.random.key(3), 2)
    assert (np.asarray(shown[0].mask).sum(-1) <= H).all()


def test_navigation_restarts_only_in_evaluation():
    assert RLExperiment(preset("navigation-maml-trpo")).test_sampler.restarts
    assert not RLExperiment(preset("navigation-maml-trpo")).sampler.restarts
