"""Trajectories that break: cut, named, kept out of what is learnt; too many of them stop the run."""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from innerloop.errors import InnerloopError
from innerloop.rl.environments import Navigation, Transition
from innerloop.rl.policies import GaussianPolicy
from innerloop.rl.rollout import Trajectories, rollout
from innerloop.rl.sample_processor import SampleProcessor
from innerloop.training.broken_trajectories import incidents

POLICY = GaussianPolicy(2, 2, hidden=(4,), key=jax.random.key(0))


class Brittle(Navigation):
    """Navigation that breaks where one walks to the right of the origin far enough."""

    def step(self, key: Any, state: Any, action: Any) -> Transition:
        after = super().step(key, state, action)
        return after._replace(reward=jnp.where(after.observation[0] > 0.15, jnp.nan, after.reward))


@pytest.fixture(scope="module")
def broken() -> Trajectories:
    return rollout(Brittle(horizon=8), POLICY, jax.random.key(1), jnp.zeros(2), 12)


def test_where_each_one_broke(broken: Trajectories):
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


def test_what_is_learnt_ends_before(broken: Trajectories):
    samples, seen = SampleProcessor()(broken), np.asarray(broken.broken())
    weights = np.asarray(samples.weights)
    lengths = (weights > 0).sum(1)
    np.testing.assert_array_equal(lengths[seen >= 0], seen[seen >= 0])
    assert np.isfinite(np.asarray(samples.advantages)).all()
    np.testing.assert_allclose(weights.sum(), 1, rtol=1e-6)


def test_returns_tell_which_broke(broken: Trajectories):
    np.testing.assert_array_equal(np.isnan(np.asarray(broken.returns())), np.asarray(broken.broken()) >= 0)


def steps(*where: tuple[int, ...]) -> np.ndarray:
    """Two meta-steps, three tasks, two policies, five trajectories; these (indices and step) broke."""
    made = np.full((2, 3, 2, 5), -1)
    for *index, step in where:
        made[tuple(index)] = step
    return made


def test_nothing_is_logged_of_a_sound_dispatch():
    assert incidents(steps(), "ant_velocity", 8, Path("runs/x")) == {}


def test_a_few_are_named_and_passed_over():
    found = incidents(steps((1, 2, 0, 4, 17), (1, 2, 1, 0, 3)), "ant_velocity", 8, Path("runs/x"))
    first = {"meta_step": 8, "task": 2, "updates": 0, "trajectory": 4, "step": 17}
    assert found == {"broken": {"trajectories": 2, "family": "ant_velocity", "first": first}}


@pytest.mark.parametrize(
    "where",
    [
        [(0, 1, 1, k, 9) for k in range(5)],
        [(0, i, j, k, 9) for i in (1, 2) for j in (0, 1) for k in (3,)],
    ],
    ids=["all of one task", "more than a tenth"],
)
def test_many_stop_the_run(where: list):
    with pytest.raises(
        InnerloopError, match=r"diverged at meta-step 7: ant_velocity broke in task 1 after \d update"
    ):
        incidents(steps(*where), "ant_velocity", 8, Path("runs/x"))
