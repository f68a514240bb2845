"""Trajectories that break: cut, named, kept out of what is learnt; too many of them stop the run."""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from innerloop.algorithms import maml
from innerloop.engine.diagnosis import Diverged
from innerloop.engine.evaluation.curve import join
from innerloop.engine.inner.inner_loop import InnerLoop
from innerloop.errors import InnerloopError
from innerloop.rl import MetaIterations, MetaSampler, gradient_update, surrogates
from innerloop.rl.environments import Navigation, Transition
from innerloop.rl.evaluate import _check_broken, evaluator
from innerloop.rl.policies import GaussianPolicy
from innerloop.rl.restarting_rollout import restarting_rollout
from innerloop.rl.rollout import Trajectories, rollout
from innerloop.rl.sample_processor import SampleProcessor
from innerloop.rl.sampler import _mean_return
from innerloop.training.diagnosis.broken_trajectories import incidents
from innerloop.training.diagnosis.nan_diagnosis import Block

POLICY = GaussianPolicy(2, 2, hidden=(4,), key=jax.random.key(0))


class Blind(Navigation):
    """Navigation whose first coordinate is lost to the right of the origin; the reward stays finite."""

    def step(self, key: Any, state: Any, action: Any) -> Transition:
        after = super().step(key, state, action)
        lost = (after.observation[0] > 0.15) | jnp.isnan(state.position[0])
        seen = after.observation.at[0].set(jnp.where(lost, jnp.nan, after.observation[0]))
        return after._replace(
            state=after.state._replace(position=seen), observation=seen, reward=jnp.zeros(())
        )


class Brittle(Navigation):
    """Navigation that breaks where one walks to the right of the origin far enough."""

    paid = jnp.nan

    def step(self, key: Any, state: Any, action: Any) -> Transition:
        after = super().step(key, state, action)
        return after._replace(reward=jnp.where(after.observation[0] > 0.15, self.paid, after.reward))


class Bottomless(Brittle):
    """The same, where the reward there is minus infinity."""

    paid = -jnp.inf


@pytest.fixture(scope="module")
def broken() -> Trajectories:
    return rollout(Brittle(horizon=8), POLICY, jax.random.key(1), jnp.zeros(2), 12)


def test_broken_reports_first_nonfinite_step(broken: Trajectories):
    """At the first place beyond the edge; nothing is paid after it."""
    beyond = np.asarray(broken.observations)[:, 1:, 0] > 0.15
    expected = np.where(beyond.any(1), beyond.argmax(1), -1)
    seen = np.asarray(broken.broken())
    known = (expected >= 0) | (seen < 0)  # the place after the last step is not among the observations
    np.testing.assert_array_equal(seen[known], expected[known])
    assert (seen >= 0).any()
    assert (seen < 0).any()
    for i in np.flatnonzero(seen >= 0):
        assert np.isnan(np.asarray(broken.rewards)[i, seen[i]])
        assert (np.asarray(broken.mask)[i, seen[i] + 1 :] == 0).all()


def test_samples_end_before_broken_step(broken: Trajectories):
    samples, seen = SampleProcessor()(broken), np.asarray(broken.broken())
    weights = np.asarray(samples.weights)
    lengths = (weights > 0).sum(1)
    np.testing.assert_array_equal(lengths[seen >= 0], seen[seen >= 0])
    assert np.isfinite(np.asarray(samples.advantages)).all()
    np.testing.assert_allclose(weights.sum(), 1, rtol=1e-6)


def test_returns_of_broken_trajectories_are_nan(broken: Trajectories):
    np.testing.assert_array_equal(np.isnan(np.asarray(broken.returns())), np.asarray(broken.broken()) >= 0)


@pytest.mark.parametrize("act", [rollout, restarting_rollout])
def test_nan_observations_keep_samples_finite(act: Any):
    """The step that would be taken from there breaks; before it all is learnt from, and nothing is NaN."""
    t = jax.jit(lambda key: act(Blind(horizon=8), POLICY, key, jnp.full(2, 9.0), 12))(jax.random.key(1))
    assert np.isfinite(np.asarray(t.observations)).all()
    seen = np.asarray(t.broken())
    assert (seen >= 1).any()
    samples = SampleProcessor()(t)
    for name in ("advantages", "weights", "log_probs"):
        assert np.isfinite(np.asarray(getattr(samples, name))).all()
    slope = jax.grad(surrogates.dice)(POLICY, samples)
    assert all(np.isfinite(np.asarray(x)).all() for x in jax.tree.leaves(slope))
    for i in np.flatnonzero(seen >= 0):  # what was seen before is still there
        row = np.asarray(t.observations)[i]
        assert not row[seen[i]].any()
        assert row[1 : seen[i]].any() or seen[i] == 1


def test_nan_first_observation_breaks_at_step_0():
    class Lost(Navigation):
        def reset(self, key: Any, task: Any) -> Any:
            state, seen = super().reset(key, task)
            return state, seen + jnp.nan

    t = rollout(Lost(horizon=3), POLICY, jax.random.key(1), jnp.ones(2), 2)
    np.testing.assert_array_equal(t.broken(), 0)
    np.testing.assert_array_equal(SampleProcessor()(t).weights, 0)


def test_lane_return_ignores_later_broken_trajectory():
    """Its return is that of its first trajectory, and what happens after its end counts as nothing."""
    rewards = jnp.array([[1.0, 2.0, jnp.nan], [1.0, jnp.nan, 0.0]])
    ends = jnp.array([[0.0, 1.0, 1.0], [0.0, 1.0, 0.0]])
    seen = jnp.zeros((2, 3, 2))
    t = Trajectories(seen, POLICY(seen), seen, rewards, jnp.array([[1.0, 1, 1], [1, 1, 0]]), ends)
    np.testing.assert_array_equal(t.returns(), [3.0, jnp.nan])
    np.testing.assert_array_equal(t.broken(), [2, 1])


class Doomed(Navigation):
    """Navigation that breaks at every step."""

    def step(self, key: Any, state: Any, action: Any) -> Transition:
        after = super().step(key, state, action)
        return after._replace(reward=jnp.asarray(jnp.inf))


def loop(
    environment: Any, rate: float = 0.1, query: Any = surrogates.ratio, **settings: Any
) -> MetaIterations:
    algorithm = maml(surrogates.dice, InnerLoop(optax.sgd(0.1), 1), outer_loss_fn=query)
    sampler = MetaSampler(environment, algorithm, trajectories=3)
    return MetaIterations(sampler, gradient_update(optax.sgd(rate)), meta_batch=2, **settings)


def test_environment_that_always_breaks_raises_diverged():
    """In Python as from the command: told, with the first trajectory; `on_nonfinite` leaves it to the caller."""
    made = loop(Doomed(horizon=3))
    message = (
        r"Doomed broke at meta-iteration 1, in task 0 after 0 updates, trajectory 0, step 0, got 12 of 12"
    )
    with pytest.raises(Diverged, match=message) as caught:
        made.run(made.start(POLICY, jax.random.key(0)), 2)
    assert caught.value.before is not None
    jax.tree.map(np.testing.assert_array_equal, caught.value.before.params, POLICY)
    state, info = made.run(made.init(POLICY, jax.random.key(0)), 2, on_nonfinite="ignore")
    assert (np.asarray(info.broken) == 0).all()
    assert all(np.isfinite(np.asarray(x)).all() for x in jax.tree.leaves(state.params))


def test_nonfinite_outer_updates_raise_diverged():
    lost = loop(
        Navigation(horizon=3), query=lambda policy, samples: surrogates.ratio(policy, samples) * jnp.nan
    )
    message = "update 1 diverged, in the query loss or its gradient, got outer loss nan"
    with pytest.raises(Diverged, match=message) as caught:
        lost.run(lost.start(POLICY, jax.random.key(0)), 1)
    assert caught.value.before is not None
    jax.tree.map(np.testing.assert_array_equal, caught.value.before.params, POLICY)
    edge = lambda policy, samples: surrogates.ratio(policy, samples) + jnp.sqrt(0 * policy.log_std[0])
    sharp = loop(Navigation(horizon=3), query=edge)
    message = "update 1 diverged, in the query loss or its gradient, got a meta-gradient of norm nan"
    with pytest.raises(Diverged, match=message):
        sharp.run(sharp.start(POLICY, jax.random.key(0)), 1)
    steep = loop(Navigation(horizon=3), 3e38, lambda policy, samples: 1e9 * surrogates.ratio(policy, samples))
    with pytest.raises(Diverged, match="update 1 diverged, in the outer update of `mean/.*`; lower"):
        steep.run(steep.start(POLICY, jax.random.key(0)), 1)


@pytest.mark.parametrize("family", [Brittle, Bottomless])
def test_evaluation_counts_and_excludes_broken_trajectories(family: Any):
    """Of either kind; too many are refused once all tasks are measured."""
    algorithm = maml(surrogates.dice, InnerLoop(optax.sgd(0.1), 1))
    sampler = MetaSampler(family(horizon=8), algorithm, SampleProcessor(), 6)
    curves = []
    with pytest.raises(
        Diverged, match=r"broke too often .*, got \d+ of 24 broken after (0|1) updates?; keep"
    ):
        curves.extend(evaluator(sampler, num_tasks=4, batch_size=2)(POLICY, jax.random.key(1)))
    found = join(curves)
    assert found.counts["broken"].shape == (4, 2)
    assert 0 < found.counts["broken"].max() < 6
    assert np.isfinite(found.scores["return"]).all()


def test_mean_return_excludes_broken_trajectories():
    rewards = jnp.array([[1.0, 2.0], [5.0, jnp.nan], [-jnp.inf, 0.0], [3.0, 4.0]])
    seen = jnp.zeros((4, 2, 2))
    t = Trajectories(seen, POLICY(seen), seen, rewards, jnp.ones((4, 2)))
    assert _mean_return(t) == 5
    assert jnp.isnan(_mean_return(t._replace(rewards=jnp.full((4, 2), jnp.inf))))


def test_evaluation_tolerates_one_tenth_broken():
    """After each number of updates: of 10 tasks with three trajectories, 3 of 30."""
    sampler = loop(Navigation(horizon=3)).sampler
    few = np.zeros((10, 2), int)
    few[:3, 1] = 1
    _check_broken(few, sampler)
    few[3, 1] = 1
    with pytest.raises(
        InnerloopError, match="Navigation broke too often .* got 4 of 30 broken after 1 update;"
    ):
        _check_broken(few, sampler)


def steps(*where: tuple[int, ...]) -> np.ndarray:
    """Two meta-steps, three tasks, two policies, five trajectories; these (indices and step) broke."""
    made = np.full((2, 3, 2, 5), -1)
    for *index, step in where:
        made[tuple(index)] = step
    return made


ANT = "ant_velocity", Block(8, Path("runs/x"), None), "train", "`rl.max_kl`"


def test_incidents_are_empty_without_broken_trajectories():
    assert incidents(steps(), *ANT) == {}


def test_incidents_report_a_few_broken_trajectories():
    found = incidents(steps((1, 2, 0, 4, 17), (1, 2, 1, 0, 3)), *ANT)
    first = {"meta_step": 8, "task": 2, "updates": 0, "trajectory": 4, "step": 17}
    assert found == {"broken": {"trajectories": 2, "family": "ant_velocity", "first": first}}


@pytest.mark.parametrize(
    "where",
    [[(0, 1, 1, k, 9) for k in range(5)], [(0, i, j, k, 9) for i in (1, 2) for j in (0, 1) for k in (3,)]],
    ids=["all of one task", "more than a tenth"],
)
def test_many_broken_trajectories_raise_diverged(where: list):
    with pytest.raises(
        Diverged, match=r"diverged at meta-step 7: ant_velocity broke in task 1 after \d update"
    ):
        incidents(steps(*where), *ANT)


def test_fully_broken_task_raises_among_many_tasks():
    made = np.full((1, 60, 2, 5), -1)
    made[0, 7, 1] = 3
    with pytest.raises(
        InnerloopError, match="meta-step 8: ant_velocity broke in task 7 after 1 update, trajectory 0"
    ):
        incidents(made, *ANT)
