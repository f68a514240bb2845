"""A user's Gymnasium environments: tasks reach them, seeds decide everything, ends are kept, order is checked."""

import re
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from innerloop.algorithms import maml
from innerloop.engine.inner.inner_loop import InnerLoop
from innerloop.errors import InnerloopError
from innerloop.rl import surrogates
from innerloop.rl.environments.gymnasium.family import GymnasiumFamily
from innerloop.rl.environments.gymnasium.pool import Group, Groups
from innerloop.rl.environments.oracle import Oracle
from innerloop.rl.fit import check_fit
from innerloop.rl.policies import CategoricalPolicy, GaussianPolicy
from innerloop.rl.rollout import rollout
from innerloop.rl.sampler import MetaSampler


class Line(gymnasium.Env):
    """A place on a line that drifts at random; paid for being near the task; over beyond 1.5."""

    observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (2,))
    action_space = gymnasium.spaces.Box(-0.5, 0.25, (1,), np.float64)

    def __init__(self):
        self.task = np.zeros(1)
        self.steps_after_end = 0

    def reset(self, *, seed: int | None = None, options: dict | None = None) -> tuple[np.ndarray, dict]:
        super().reset(seed=seed)
        self.place, self.time, self.ended = float(self.np_random.normal()), 0, False
        return np.array([self.place, 0.0]), {}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict]:
        assert not self.ended
        assert action.shape == (1,)
        self.place += float(action[0]) + 0.1 * float(self.np_random.normal())
        self.time += 1
        self.ended = abs(self.place) > 1.5
        return (
            np.array([self.place, self.time]),
            -abs(self.place - float(self.task[0])),
            self.ended,
            False,
            {},
        )


def put(environment: Line, task: np.ndarray) -> None:
    environment.task = task


def family(make: Any = Line, horizon: int = 7) -> GymnasiumFamily:
    return GymnasiumFamily(make, lambda key: jax.random.uniform(key, (1,)), put, horizon)


POLICY = GaussianPolicy(2, 1, hidden=(4,), key=jax.random.key(0))


def acted(environment: GymnasiumFamily, seed: int = 1) -> Any:
    """Three tasks with four trajectories each."""
    keys = jax.random.split(jax.random.key(seed), 3)
    tasks = jax.vmap(environment.sample_task)(keys)
    act = lambda key, task: rollout(environment, POLICY, key, task, 4)
    return tasks, jax.jit(jax.vmap(act))(keys, tasks)


@pytest.fixture(scope="module")
def told() -> tuple[GymnasiumFamily, Any, Any]:
    environment = family()
    return environment, *acted(environment)


@pytest.mark.parametrize("wrap", [lambda environment: environment, Oracle])
def test_sampler_with_restarts_raises(wrap: Any):
    """Told before anything is compiled; it would be stepped out of order in the middle of the run."""
    algorithm = maml(surrogates.dice, InnerLoop(optax.sgd(0.1), 1))
    sampler = MetaSampler(wrap(family()), algorithm, trajectories=4)
    with pytest.raises(InnerloopError, match="so one alone cannot restart; use `restarts=False`"):
        replace(sampler, restarts=True)


def test_rewards_match_each_task(told: tuple):
    """Reward at a step is minus the distance of the next place to the task of that row."""
    _, tasks, t = told
    places = np.asarray(t.observations)[..., 0]
    expected = -np.abs(places[:, :, 1:] - np.asarray(tasks)[:, None])
    alive = np.asarray(t.mask)[:, :, 1:] > 0
    np.testing.assert_allclose(np.asarray(t.rewards)[:, :, :-1][alive], expected[alive], rtol=1e-5)
    assert np.asarray(t.observations)[0, 0, 1, 1] == 1


def test_ended_trajectories_stay_ended(told: tuple):
    """The environment itself asserts that nobody steps it after its end; afterwards nothing is paid."""
    _, _, t = told
    mask = np.asarray(t.mask)
    assert (mask.sum(-1) < 7).any()
    assert (np.diff(mask, axis=-1) <= 0).all()
    assert (np.asarray(t.rewards)[mask == 0] == 0).all()


def test_trajectories_are_determined_by_key(told: tuple):
    environment, _, first = told
    _, again = acted(environment)
    jax.tree.map(np.testing.assert_array_equal, first, again)
    _, other = acted(environment, seed=2)
    assert not np.array_equal(first.observations, other.observations)
    assert len(environment.groups.free) == 1, "a set of copies is used again"


def test_actions_are_rescaled_to_the_bounds():
    group = Group(family(), 1)
    bounds = [float(group._to_bounds(np.array([a]))[0]) for a in (-3.0, -1.0, 0.0, 1.0, 2.0)]
    np.testing.assert_allclose(bounds, [-0.5, -0.5, -0.125, 0.25, 0.25])


def test_stepping_out_of_order_raises():
    environment = family()
    keys = jax.random.split(jax.random.key(0), 2)
    state, _ = jax.vmap(environment.reset, (0, None))(keys, jnp.zeros(1))
    go = jax.vmap(environment.step)
    go(keys, state, jnp.zeros((2, 1)))
    with pytest.raises(Exception, match="stepped out of order"):
        jax.block_until_ready(go(keys, state, jnp.zeros((2, 1))))


def test_groups_in_use_are_not_handed_out_again(monkeypatch: pytest.MonkeyPatch):
    """Even if more devices act at once than usual: no set in use is handed out again."""
    monkeypatch.setattr(jax, "local_device_count", lambda: 20)
    groups = family().groups
    handles = [groups.reset(np.zeros(1, int), np.zeros((1, 1)))[0] for _ in range(20)]
    for handle in handles:
        groups.step(handle, np.zeros((1, 1)))


class Hurried(Groups):
    """Another device resets a set the moment that it is free."""

    def _release(self, number: int) -> None:
        super()._release(number)
        self.reset(np.array([7, 8]), np.full((2, 1), 9.0))


def test_step_results_survive_reuse_of_the_group():
    def stepped(kind: type[Groups]) -> Any:
        groups = kind(family(horizon=1))
        handle, _ = groups.reset(np.arange(2), np.zeros((2, 1)))
        groups.used[1].over[0] = True
        return groups.step(handle, np.zeros((2, 1)))

    jax.tree.map(np.testing.assert_array_equal, stepped(Hurried), stepped(Groups))


class Slow(Group):
    """A set whose size takes a while to find out, so that another thread looks for one meanwhile."""

    def __init__(self):
        pass

    copies = property(lambda self: time.sleep(0.02) or [None])


def test_threads_acquire_different_groups():
    groups = family().groups
    groups.free = [Slow(), Slow()]
    with ThreadPoolExecutor(2) as threads:
        (first, one), (second, other) = threads.map(groups._acquire, (1, 1))
    assert first != second
    assert one is not other


def test_discrete_actions():
    chosen = GymnasiumFamily(
        lambda: gymnasium.make("CartPole-v1"), lambda key: jnp.zeros(1), lambda e, t: None, 5
    )
    assert (chosen.discrete, chosen.action_size, chosen.observation_size) == (True, 2, 4)
    policy = CategoricalPolicy(4, 2, hidden=(), key=jax.random.key(0))
    t = jax.jit(lambda key: rollout(chosen, policy, key, jnp.zeros(1), 2))(jax.random.key(0))
    np.testing.assert_array_equal(t.rewards, np.ones((2, 5)))


def test_guide_cartpole_has_physics_of_its_length():
    """The guide's own `set_task`, against a pole whose constants were all made from the length."""
    page = (Path(__file__).resolve().parents[2] / "docs" / "guides" / "rl.md").read_text()
    names: dict[str, Any] = {}
    exec(next(b for b in re.findall(r"```python\n(.*?)```", page, re.DOTALL) if "set_length" in b), names)
    pole: Any = gymnasium.make("CartPole-v1")
    pole.reset(seed=0)
    start = np.array([0.1, 0.2, -0.05, 0.3])
    names["set_length"](pole, np.array([0.25]))
    pole.unwrapped.state = start
    found = pole.step(1)[0]
    force, mass, total, half, g, tau = 10.0, 0.1, 1.1, 0.25, 9.8, 0.02
    x, v, angle, spin = start
    push = (force + mass * half * spin**2 * np.sin(angle)) / total
    turn = (g * np.sin(angle) - np.cos(angle) * push) / (half * (4 / 3 - mass * np.cos(angle) ** 2 / total))
    pushed = push - mass * half * turn * np.cos(angle) / total
    expected = [x + tau * v, v + tau * pushed, angle + tau * spin, spin + tau * turn]
    np.testing.assert_allclose(found, expected, rtol=1e-6)


class Old(Line):
    """The interface before Gymnasium: four values a step, an observation alone."""

    def step(self, action: np.ndarray) -> Any:
        observation, reward, ended, _, info = super().step(action)
        return observation, reward, ended, info


class OldReset(Line):
    def reset(self, **settings: Any) -> Any:
        return super().reset(**settings)[0]


class Wide(Line):
    def reset(self, **settings: Any) -> Any:
        observation, info = super().reset(**settings)
        return np.append(observation, 0.0), info


class Unpaid(Line):
    def step(self, action: np.ndarray) -> Any:
        observation, _, *rest = super().step(action)
        return observation, None, *rest


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (Old, "`step` must return .observation, reward, terminated, truncated, info., got 4 values; wrap"),
        (OldReset, r"`reset` must return \(observation, info\), got ndarray"),
        (Wide, r"an observation must have 2 numbers, as its observation space says, got shape \(3,\)"),
        (Unpaid, "a reward must be a number, got None"),
    ],
)
def test_invalid_gymnasium_environments_raise(make: Any, message: str):
    """Told before training, not from within a compiled program."""
    with pytest.raises(InnerloopError, match=message):
        check_fit(family(make), POLICY)


def test_failed_probe_through_oracle_closes_environment():
    closed = []

    class Closing(OldReset):
        def close(self) -> None:
            closed.append(self)

    oracle = Oracle(family(Closing))
    before = len(closed)
    with pytest.raises(InnerloopError, match="`reset` must return"):
        oracle.probe()
    assert len(closed) == before + 1


def test_unbounded_action_space_raises():
    class Unbounded(Line):
        action_space = gymnasium.spaces.Box(-np.inf, np.inf, (1,))

    with pytest.raises(InnerloopError, match="the action space is unsupported"):
        family(Unbounded)
