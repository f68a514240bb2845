"""Environments and policies of one's own that do not fit: told by name, before anything acts."""

import random
import re
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from innerloop.algorithms import maml
from innerloop.engine.inner.inner_loop import InnerLoop
from innerloop.errors import InnerloopError
from innerloop.rl import (
    Bandit,
    Categorical,
    CategoricalPolicy,
    GaussianPolicy,
    GymnasiumFamily,
    Locomotion,
    MetaIterations,
    MetaSampler,
    Navigation,
    Normal,
    Oracle,
    SampleProcessor,
    TabularMDP,
    Transition,
    TrustRegion,
    gradient_update,
    ppo_update,
    surrogates,
)
from innerloop.rl.fit import check_fit, check_members
from innerloop.rl.restarting_rollout import restarting_rollout
from innerloop.rl.rollout import rollout


class Room(NamedTuple):
    place: Any
    task: Any


@dataclass(frozen=True, eq=False)
class Walk:
    """A place that the action moves; every return value can be replaced."""

    horizon: Any = 3
    observation_size: Any = 2
    action_size: Any = 2
    discrete: bool = False
    changes: dict = field(default_factory=dict)

    def changed(self, name: str, value: Any) -> Any:
        change = self.changes.get(name)
        return change(value) if callable(change) else value

    def sample_task(self, key):
        return self.changed("task", jax.random.normal(key, (2,)))

    def task_vector(self, task):
        return task

    def reset(self, key, task):
        place = jax.random.normal(key, (2,))
        return self.changed("reset", (Room(place, task), self.changed("seen", place)))

    def step(self, key, state, action):
        place = state.place + jnp.sum(action)
        reward = -jnp.sum((place - state.task) ** 2)
        return self.changed(
            "step",
            Transition(
                self.changed("state", Room(place, state.task)),
                self.changed("step_seen", place),
                self.changed("reward", reward),
                self.changed("done", jnp.array(False)),
            ),
        )


GAUSSIAN = GaussianPolicy(2, 2, hidden=(4,), key=jax.random.key(0))
CATEGORICAL = CategoricalPolicy(2, 2, hidden=(), key=jax.random.key(0))
KEY = jax.random.key(1)
ALGORITHM = maml(surrogates.dice, InnerLoop(optax.sgd(0.1), 1))
RNG = np.random.default_rng(0)


def iterations(environment: Any, policy: Any = GAUSSIAN) -> Any:
    """The state before training, as a user begins."""
    sampler = MetaSampler(environment, ALGORITHM, trajectories=3)
    return MetaIterations(sampler, gradient_update(optax.adam(1e-3)), meta_batch=2).start(policy, KEY)


def cartpole() -> GymnasiumFamily:
    gymnasium = pytest.importorskip("gymnasium")
    tasks = lambda key: jax.random.uniform(key, (1,))
    return GymnasiumFamily(lambda: gymnasium.make("CartPole-v1"), tasks, lambda environment, task: None, 5)


def policy(kind: type, observations: int, actions: int) -> Any:
    return kind(observations, actions, hidden=(3,), key=jax.random.key(0))


@pytest.mark.parametrize(
    "make",
    [
        Navigation,
        lambda: TabularMDP(3, 2, 4),
        lambda: Bandit(3),
        lambda: Oracle(Navigation()),
        cartpole,
        Walk,
        Locomotion,
    ],
    ids=["navigation", "table", "bandit", "oracle", "gymnasium", "own", "locomotion"],
)
def test_check_fit_accepts_matching_policies(make: Any):
    environment = make()
    kind = CategoricalPolicy if environment.discrete else GaussianPolicy
    check_fit(environment, policy(kind, environment.observation_size, environment.action_size))


@pytest.mark.parametrize("begin", ["start", "rollout", "restarts"])
@pytest.mark.parametrize(
    ("make", "given", "message"),
    [
        (
            cartpole,
            policy(GaussianPolicy, 4, 2),
            "an action is an index below 2, .*float32 of shape \\(2,\\); use a Cat",
        ),
        (cartpole, policy(GaussianPolicy, 4, 1), "an action is an index below 2"),
        (cartpole, policy(CategoricalPolicy, 4, 3), "it has 2 actions, got a policy over 3"),
        (cartpole, policy(CategoricalPolicy, 3, 2), r"cannot read observations of shape \(\d, 4\)"),
        (
            Navigation,
            CATEGORICAL,
            "an action is a vector of 2 floats, .*int32 of shape \\(\\); use a GaussianPolicy",
        ),
        (
            Navigation,
            policy(GaussianPolicy, 2, 3),
            r"an action is a vector of 2 floats, .*got float32 of shape \(3,\)",
        ),
        (
            Navigation,
            policy(GaussianPolicy, 2, 1),
            r"an action is a vector of 2 floats, .*got float32 of shape \(1,\)",
        ),
        (Navigation, policy(GaussianPolicy, 3, 2), r"cannot read observations of shape \(\d, 2\)"),
        (lambda: Oracle(Navigation()), GAUSSIAN, r"cannot read observations of shape \(\d, 4\)"),
        (lambda: TabularMDP(3, 2, 4), policy(GaussianPolicy, 3, 2), "an action is an index below 2"),
        (Navigation, jnp.zeros(3), r"policy: it must be callable, got ArrayImpl; use a GaussianPolicy"),
    ],
)
def test_mismatched_policies_raise(make: Any, given: Any, message: str, begin: str):
    """Before training; and where trajectories are sampled without it."""
    environment = make()
    task = environment.sample_task(KEY)
    begun = {
        "start": lambda: iterations(environment, given),
        "rollout": lambda: jax.eval_shape(lambda: rollout(environment, given, KEY, task, 2)),
        "restarts": lambda: jax.eval_shape(lambda: restarting_rollout(environment, given, KEY, task, 2)),
    }
    with pytest.raises(InnerloopError, match=message):
        begun[begin]()


class Answers:
    """A policy that returns what it is told to."""

    def __init__(self, answer: Any):
        self.answer = answer

    def __call__(self, seen):
        return self.answer(seen)


jax.tree_util.register_pytree_node(
    Answers, lambda p: ((jnp.zeros(()),), p.answer), lambda answer, _: Answers(answer)
)


class OfComponents(Normal):
    """Densities that are not summed over the components of an action."""

    def log_prob(self, action):
        return -((action - self.mean) ** 2)


class WithoutDivergence(NamedTuple):
    """No `kl`, which outer steps measure."""

    mean: Any

    def sample(self, key):
        return self.mean

    def log_prob(self, action):
        return jnp.zeros(len(self.mean))


class Rounded(Normal):
    """Actions that are whole numbers, one for each component."""

    def sample(self, key):
        return super().sample(key).astype(int)


class Single(Normal):
    """Actions of one float."""

    def sample(self, key):
        return super().sample(key)[:, 0]


def test_action_dtype_mismatch_raises():
    """Whole numbers for a vector of floats, a float for an index: of the right shape, and refused."""
    with pytest.raises(InnerloopError, match=r"a vector of 2 floats, .*got int32 of shape \(2,\)"):
        iterations(Walk(), Answers(lambda seen: Rounded(seen, seen)))
    with pytest.raises(InnerloopError, match=r"an index below 2, .*got float32 of shape \(\)"):
        iterations(Walk(discrete=True), Answers(lambda seen: Single(seen, seen)))


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (lambda seen: seen, "must return distributions over actions, got float32"),
        (
            WithoutDivergence,
            "must return distributions over actions, got WithoutDivergence of 1; return innerloop.rl",
        ),
        (lambda seen: (seen, seen), "must return distributions over actions, got tuple of 2"),
        (
            lambda seen: Normal(seen, jnp.zeros(2)),
            "`log_std` of its distributions must have the leading axes",
        ),
        (
            lambda seen: Normal(seen[0], jnp.zeros(2)),
            "`mean` of its distributions must have the leading axes",
        ),
        (
            lambda seen: OfComponents(seen, seen),
            r"`log_prob` must be one number for each action, got \(2,\); sum over",
        ),
        (lambda seen: Categorical(seen), "an action is a vector of 2 floats"),
    ],
)
def test_policies_with_invalid_return_values_raise(answer: Any, message: str):
    with pytest.raises(InnerloopError, match=message):
        iterations(Walk(), Answers(answer))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"seen": lambda x: x[:1]},
            r"Walk: the observation of `reset` .* float of shape \(2,\), got float32 of shape \(1,\)",
        ),
        ({"seen": lambda x: x[None]}, r"the observation of `reset`"),
        ({"seen": lambda x: x.astype(int)}, r"must be float of shape \(2,\), got int32"),
        ({"seen": lambda x: list(x)}, r"the observation of `reset`.*got list of 2"),
        ({"reset": lambda x: x[0]}, r"`reset` must return \(state, observation\), got Room of 2"),
        ({"reset": lambda x: (*x, {})}, r"`reset` must return \(state, observation\), got tuple of 3"),
        (
            {"reset": lambda x: (x[0]._replace(place="here"), x[1])},
            "the state of `reset` must be arrays, got str, at `place`",
        ),
        ({"step": tuple}, "`step` must return a Transition, got tuple of 4; return innerloop.rl.Transition"),
        (
            {"step_seen": lambda x: jnp.append(x, 0.0)},
            r"the observation of `step`.*got float32 of shape \(3,\)",
        ),
        (
            {"reward": lambda x: x[None]},
            r"the reward of `step` must be float of shape \(\), got float32 of shape \(1,\)",
        ),
        ({"reward": lambda x: jnp.array(1)}, r"the reward of `step` must be float of shape \(\), got int32"),
        ({"reward": lambda x: None}, r"the reward of `step` must be float of shape \(\), got NoneType"),
        ({"done": lambda x: jnp.array(0.0)}, r"`done` of `step` must be boolean of shape \(\), got float32"),
        ({"done": lambda x: jnp.zeros(2, bool)}, r"`done` of `step` must be boolean"),
        ({"state": lambda x: x.place}, "`step` must return a state like that of `reset`, got PyTreeDef"),
        (
            {"state": lambda x: x._replace(place=x.place[0])},
            "`place` differs, got float32 of shape \\(\\) after float32",
        ),
        ({"state": lambda x: x._replace(task=x.task > 0)}, "`task` differs, got bool of shape"),
        (
            {"state": lambda x: x._replace(task="far")},
            "the state of `step` must be arrays, got str, at `task`",
        ),
        (
            {"task": lambda x: {"goal": x, "name": "a"}},
            "the task of `sample_task` must be arrays, got str, at `name`",
        ),
        (
            {"task": lambda x: jnp.zeros(2)},
            "MetaIterations: `Walk.sample_task` does not depend on its key.* with jax.random.choice",
        ),
        ({"reward": lambda x: x if x > 0 else -x}, "Walk: `step` cannot be compiled .*; use jnp.where"),
        ({"seen": lambda x: x if x[0] > 0 else -x}, "Walk: `reset` cannot be compiled"),
        ({"task": lambda x: RNG.normal(size=2)}, "`Walk.sample_task` does not depend on its key"),
        ({"seen": lambda x: x + RNG.normal(size=2)}, "`Walk.reset` draws different numbers for the same key"),
        ({"seen": lambda x: x + random.random()}, "`Walk.reset` draws different numbers for the same key"),
        (
            {"reward": lambda x: x + np.random.default_rng().normal()},
            "`Walk.step` draws different numbers for the same key",
        ),
    ],
)
def test_environments_with_invalid_methods_raise(changes: dict, message: str):
    with pytest.raises(InnerloopError, match=message):
        iterations(Walk(changes=changes))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"horizon": 0}, "Walk.horizon: must be 1 or more, got 0"),
        ({"horizon": 2.5}, "Walk.horizon: must be a whole number, got 2.5"),
        ({"horizon": None}, "Walk.horizon: must be a whole number, got None"),
        ({"observation_size": (2,)}, "Walk.observation_size: must be a whole number"),
        ({"action_size": -1}, "Walk.action_size: must be 1 or more"),
    ],
)
def test_invalid_environment_sizes_raise(fields: dict, message: str):
    with pytest.raises(InnerloopError, match=message):
        iterations(replace(Walk(), **fields))


@pytest.mark.parametrize(
    "name", ["horizon", "observation_size", "action_size", "discrete", "sample_task", "reset", "step"]
)
def test_missing_environment_members_raise(name: str):
    known = {n: getattr(Walk(), n) for n in ("horizon", "observation_size", "action_size", "discrete")}
    known |= {n: getattr(Walk(), n) for n in ("sample_task", "reset", "step")}
    lacking = type("Lacking", (), {n: v for n, v in known.items() if n != name})()
    with pytest.raises(InnerloopError, match=re.escape(f"Lacking: an environment needs `{name}`")):
        check_members(lacking)


def test_numpy_and_python_numbers_are_accepted():
    """A place of NumPy's, a reward and an end of Python's: no reason to refuse them."""
    plain = {
        "reset": lambda x: (Room(np.zeros(2, np.float32), x[0].task), np.zeros(2)),
        "reward": lambda x: 1.0,
        "done": lambda x: False,
    }
    iterations(Walk(changes=plain))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: TabularMDP(states=0), "TabularMDP.states: must be 1 or more"),
        (lambda: TabularMDP(noise=-1.0), "TabularMDP.noise: must be 0 or more"),
        (lambda: Bandit(horizon=0), "Bandit.horizon: must be 1 or more"),
        (lambda: SampleProcessor(discount=1.01), "SampleProcessor.discount: must be 1 or less"),
        (
            lambda: SampleProcessor(gae_lambda=float("nan")),
            "SampleProcessor.gae_lambda: must be a finite number",
        ),
        (lambda: TrustRegion(max_kl=0.0), "TrustRegion.max_kl: must be above 0"),
        (lambda: TrustRegion(fisher_fraction=1.5), "TrustRegion.fisher_fraction: must be 1 or less"),
        (lambda: TrustRegion(cg_steps=0), "TrustRegion.cg_steps: must be 1 or more"),
        (lambda: TrustRegion(damping=-1e-5), "TrustRegion.damping: must be 0 or more"),
        (lambda: TrustRegion(backtrack_ratio=0.0), "TrustRegion.backtrack_ratio: must be above 0"),
        (lambda: ppo_update(optax.sgd(0.1), clip=0.0), "clipped: must be above 0"),
        (lambda: ppo_update(optax.sgd(0.1), 0), "ppo_update.epochs: must be 1 or more"),
        (lambda: Oracle(Aimless()).observation_size, r"`task_vector` must have one axis, got shape \(\)"),
    ],
)
def test_invalid_settings_raise(make: Any, message: str):
    with pytest.raises(InnerloopError, match=message):
        make()


@pytest.mark.parametrize("kind", [Navigation, Bandit, TabularMDP, Locomotion])
def test_discrete_is_not_a_constructor_argument(kind: Any):
    with pytest.raises(TypeError, match="discrete"):
        kind(discrete=not kind().discrete)


class Aimless(Walk):
    def task_vector(self, task):
        return task[0]
