"""The outer optimiser gets what it asks for, and one that would break the meta-parameters is refused."""

import inspect
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from innerloop.algorithms import maml, reptile
from innerloop.engine.algorithm import MetaInfo
from innerloop.engine.inner.inner_loop import InnerLoop
from innerloop.engine.optimizer import initial_moments
from innerloop.engine.outer.outer_loop import OuterLoop
from innerloop.engine.outer.persistent_adam import persistent_adam
from innerloop.engine.types import Batch, Task
from innerloop.errors import InnerloopError
from innerloop.nn import MLP
from innerloop.nn.losses import mean_squared_error
from innerloop.rl.updates import MetaObjective, gradient_update, ppo_update

KEY = jax.random.key(0)
MODEL = MLP(1, 1, hidden=(3,), activation="tanh", key=KEY)
ALGORITHM = maml(mean_squared_error(), InnerLoop(optax.sgd(0.1), 1))
X = jnp.linspace(-1, 1, 6)[:, None]


class Line:
    """Nearly one task, so that an update on the next ones lowers the same objective."""

    def sample(self, key: jax.Array) -> Task:
        slope = 2 + 1e-4 * jax.random.normal(key)
        return Task(Batch(X, slope * X), Batch(X, slope * X))


def losses(optimizer: Any, updates: int) -> np.ndarray:
    loop = OuterLoop(ALGORITHM, optimizer, Line(), meta_batch=2)
    return np.asarray(loop.run(loop.init(MODEL, KEY), updates)[1].outer_loss)


def test_reduce_on_plateau_receives_loss():
    """By half at every loss that is above seven tenths of the best: as told the losses one by one."""
    plateau = optax.contrib.reduce_on_plateau(factor=0.5, rtol=0.3, patience=1)
    loop = OuterLoop(ALGORITHM, optax.chain(optax.sgd(0.05), plateau), Line(), meta_batch=2)
    after, info = loop.run(loop.init(MODEL, KEY), 5)
    state: Any = plateau.init({})
    for loss in info.outer_loss:
        _, state = plateau.update({}, state, value=loss)
    assert float(after.opt_state[1].scale) == float(state.scale) < 1  # pyright: ignore


def test_lbfgs_line_search_evaluates_objective():
    """L-BFGS by itself needs no step size: it looks for one along the line."""
    found, plain = losses(optax.lbfgs(), 12), losses(optax.sgd(0.05), 12)
    assert found[-1] < 0.1 * plain[-1]


def test_polyak_sgd_receives_loss():
    assert losses(optax.polyak_sgd(max_learning_rate=0.1), 8)[-1] < losses(optax.sgd(0.0), 1)[0]


class Bowl(MetaObjective):
    """The objective |params|^2 of any tasks."""

    def gradient(self, params: Any, tasks: Any) -> tuple[Any, Any]:
        value, grads = jax.value_and_grad(lambda p: jnp.sum(p["w"] ** 2))(params)
        return grads, MetaInfo(value, jnp.zeros(1))

    def judged(self, params: Any, tasks: Any) -> tuple[Any, Any]:
        return jnp.zeros(()), jnp.zeros(())


@pytest.mark.parametrize("make", [gradient_update, lambda rule: ppo_update(rule, epochs=2)])
def test_policy_updates_support_lbfgs(make: Any):
    params = {"w": jnp.array([3.0, 4.0])}
    step = make(optax.lbfgs())
    state = step.init(params)
    for _ in range(2):
        params, state, _ = step.step(Bowl(ALGORITHM), params, state, Task(X, X))
    assert float(jnp.sum(params["w"] ** 2)) < 1e-6


def test_invalid_optimizer_raises():
    loop: Any = OuterLoop.__new__(OuterLoop)
    with pytest.raises(
        InnerloopError, match="OuterLoop: `optimizer` must be an Optax optimiser, got 0.1; pass optax"
    ):
        inspect.unwrap(OuterLoop.__mro__[1].__init__)(loop, ALGORITHM, 0.1, 2, None, None)
    half: Any = SimpleNamespace(update=optax.sgd(0.1).update)
    with pytest.raises(InnerloopError, match="`optimizer` must be an Optax optimiser"):
        inspect.unwrap(OuterLoop.__mro__[1].__init__)(loop, ALGORITHM, half, 2, None, None)


def test_initial_moments_reports_mismatched_optimizer():
    def init(params: Any) -> Any:
        raise InnerloopError("mine", "wants other parameters")

    with pytest.raises(InnerloopError, match="^mine: wants other parameters"):
        initial_moments(init, {"w": jnp.ones(2)}, "OuterLoop")
    wrong = optax.multi_transform({"a": optax.sgd(0.1)}, {"other": "a"})
    with pytest.raises(InnerloopError, match="^OuterLoop: its optimiser does not fit the parameters"):
        initial_moments(wrong.init, {"w": jnp.ones(2)}, "OuterLoop")


@pytest.mark.parametrize(
    ("optimizer", "fits"),
    [
        (optax.sgd(1.0), True),
        (optax.sgd(optax.linear_schedule(0.5, 0.0, 10)), True),
        (optax.chain(optax.clip(0.1), optax.sgd(0.1)), True),
        (optax.adam(1e-3), False),
        (optax.sgd(0.1, momentum=0.9), False),
        (optax.sgd(1.5), False),
        (optax.chain(optax.add_decayed_weights(0.1), optax.sgd(0.1)), False),
    ],
)
def test_outer_optimizer_must_keep_second_moments_positive(optimizer: Any, fits: bool):
    """They are meta-parameters: the outer step must leave them between what they were and the task's."""
    loop = OuterLoop(
        reptile(mean_squared_error(), InnerLoop(persistent_adam(0.01), 2)), optimizer, Line(), meta_batch=2
    )
    if not fits:
        with pytest.raises(
            InnerloopError, match="persistent_adam: the outer optimizer would make second moments neg"
        ):
            loop.init(MODEL, KEY)
        return
    after, _ = loop.run(loop.init(MODEL, KEY), 3)
    assert all(bool((v > 0).all()) for v in jax.tree.leaves(after.params.moments))


@pytest.mark.parametrize(
    "select", ["head", ("head",), lambda path: path.startswith("head"), ["head/weight", "head/bias"]]
)
def test_selected_parameters_update_their_moments(select: Any):
    algorithm = reptile(mean_squared_error(), InnerLoop(persistent_adam(0.01), 2, select=select))
    theta = algorithm.init(MODEL)
    found = algorithm.whole_trajectory(theta, Line().sample(KEY).support).adapted
    moved = lambda before, after: bool(jnp.any(before != after))
    for before, after in ((theta.model, found.model), (theta.moments, found.moments)):
        assert moved(before.head.weight, after.head.weight)
        assert not moved(before.body[0].weight, after.body[0].weight)


@pytest.mark.parametrize("select", ["model/head", "moments/head", lambda path: path.startswith("model/head")])
def test_selection_uses_model_parameter_names(select: Any):
    algorithm = reptile(mean_squared_error(), InnerLoop(persistent_adam(0.01), 2, select=select))
    with pytest.raises(InnerloopError, match="select: .* no parameter; .*: model/body/0/weight"):
        algorithm.adapt(algorithm.init(MODEL), Line().sample(KEY).support)
