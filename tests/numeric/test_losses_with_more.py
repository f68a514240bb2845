"""Random losses, model state and auxiliary outputs, against loops written by hand, in float64."""

from functools import cache
from typing import get_args

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from numeric_cases import mlp_case, normal

from innerloop.algorithms import fomaml, joint, maml, reptile
from innerloop.engine.algorithm import QUERY, loss_key
from innerloop.engine.evaluation.evaluate import evaluate
from innerloop.engine.inner.inner_loop import Derivative, InnerLoop
from innerloop.engine.losses.loss import Adapted, Loss
from innerloop.engine.outer.outer_loop import OuterLoop
from innerloop.engine.outer.task_draws import task_keys
from innerloop.engine.types import Batch, Task
from innerloop.errors import InnerloopError

RATE, STEPS = 0.1, 3
SGD = optax.sgd(RATE)
KEY = jax.random.key(7)


def dropout_loss(params, batch, *, key):
    hidden = jnp.tanh(batch.inputs @ params["body"]["w"] + params["body"]["b"])
    hidden = jnp.where(jax.random.bernoulli(key, 0.5, hidden.shape), 2 * hidden, 0)
    outputs = hidden @ params["head"]["w"] + params["head"]["b"]
    return jnp.mean(jnp.square(outputs - batch.targets))


def normalised_loss(params, batch, *, state):
    """Inputs are normalised by a running mean that they move; how often is counted."""
    mean = 0.9 * state["mean"] + 0.1 * batch.inputs.mean(0) * params["head"]["b"].sum()
    hidden = jnp.tanh((batch.inputs - mean) @ params["body"]["w"] + params["body"]["b"])
    outputs = hidden @ params["head"]["w"] + params["head"]["b"]
    aux = {"largest": jnp.max(jnp.abs(outputs))}
    return jnp.mean(jnp.square(outputs - batch.targets)), {"mean": mean, "calls": state["calls"] + 1}, aux


def stateful(differentiate: bool = False) -> Loss:
    state = {"mean": jnp.zeros(3), "calls": jnp.zeros((), jnp.int32)}
    return Loss(normalised_loss, state=state, aux=True, differentiate_state=differentiate)


def by_hand(params, task: Task, differentiate: bool):
    """The query loss after a loop written out, with its state and what it saw."""
    state, seen = stateful().state, []
    for _ in range(STEPS):
        loss = lambda p, state=state: normalised_loss(p, task.support, state=state)
        (value, (after, aux)), grads = jax.value_and_grad(
            lambda p, loss=loss: (loss(p)[0], loss(p)[1:]), has_aux=True
        )(params)
        state = after if differentiate else jax.lax.stop_gradient(after)
        params = jax.tree.map(lambda p, g: p - RATE * g, params, grads)
        seen.append((value, aux["largest"]))
    return normalised_loss(params, task.query, state=state)[0], (params, state, seen)


def same(a, b, tolerance: float = 1e-10) -> None:
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, tolerance, tolerance), a, b)


def test_state_carries_no_gradient_by_default():
    """As running statistics do not."""
    _, params, task = mlp_case()
    plain = Loss(normalised_loss, state=stateful().state, aux=True)
    found = maml(plain, InnerLoop(SGD, STEPS)).meta_grad(params, task)[0]
    same(found, with_state_by_hand(False)[1])


@cache
def with_keys_by_hand(select: str | None):
    """The outer loss and its gradient, of a loop whose every step has a key of its own."""
    _, params, task = mlp_case()

    def outer(start):
        params = start
        for i in range(STEPS):
            grads = jax.grad(dropout_loss)(params, task.support, key=jax.random.fold_in(KEY, i))
            keep = lambda name, new, old: new if select in (None, name) else old
            params = {
                name: keep(
                    name, jax.tree.map(lambda p, g: p - RATE * g, params[name], grads[name]), params[name]
                )
                for name in params
            }
        return dropout_loss(params, task.query, key=jax.random.fold_in(KEY, QUERY))

    return jax.jit(jax.value_and_grad(outer))(params)


@pytest.mark.parametrize("derivative", get_args(Derivative))
@pytest.mark.parametrize("select", [None, "head"])
def test_inner_steps_and_query_use_separate_keys(derivative: Derivative, select):
    _, params, task = mlp_case()
    algorithm = maml(
        Loss(dropout_loss, random=True), InnerLoop(SGD, STEPS, select=select, derivative=derivative)
    )
    value, grads = with_keys_by_hand(select)
    found, info = algorithm.meta_grad(params, task, key=KEY)
    same((found, info.outer_loss), (grads, value))


@cache
def with_state_by_hand(differentiate: bool):
    """The outer loss with what the loop left, and its gradient."""
    _, params, task = mlp_case()
    outer = lambda params: by_hand(params, task, differentiate)
    return jax.jit(jax.value_and_grad(outer, has_aux=True))(params)


@pytest.mark.parametrize("derivative", get_args(Derivative))
@pytest.mark.parametrize("differentiate", [False, True])
def test_state_is_carried_through_inner_loop_and_returned(derivative: Derivative, differentiate: bool):
    _, params, task = mlp_case()
    algorithm = maml(stateful(differentiate), InnerLoop(SGD, STEPS, derivative=derivative))
    (value, (adapted, state, seen)), grads = with_state_by_hand(differentiate)
    found, info = algorithm.meta_grad(params, task)
    same((found, info.outer_loss), (grads, value))
    ours = algorithm.adapt(params, task.support)
    same(ours, Adapted(adapted, state))
    assert ours.state["calls"] == STEPS
    trajectory = algorithm.trajectory(params, task.support)
    same((trajectory.losses, trajectory.aux["largest"]), tuple(map(jnp.stack, zip(*seen, strict=True))))


def test_differentiate_state_changes_gradient():
    _, params, task = mlp_case()
    one, other = (maml(stateful(d), InnerLoop(SGD, STEPS)).meta_grad(params, task)[0] for d in (False, True))
    assert not np.allclose(one["head"]["b"], other["head"]["b"], rtol=1e-6)


def test_other_algorithms_support_state():
    _, params, task = mlp_case()
    value, (adapted, state, _) = with_state_by_hand(False)[0]
    inner = InnerLoop(SGD, STEPS)
    query = lambda p: normalised_loss(p, task.query, state=state)[0]
    grads, info = fomaml(stateful(), inner).meta_grad(params, task)
    same((grads, info.outer_loss), (jax.grad(query)(adapted), value))
    assert info.aux["largest"] == normalised_loss(adapted, task.query, state=state)[2]["largest"]
    same(reptile(stateful(), inner).meta_grad(params, task)[0], jax.tree.map(jnp.subtract, params, adapted))
    start = lambda p: normalised_loss(p, task.query, state=stateful().state)[0]
    same(joint(stateful(), inner).meta_grad(params, task)[0], jax.grad(start)(params))


class Lines:
    """Tasks of the shape of `mlp_case`."""

    def sample(self, key):
        draw = lambda i, n: jax.random.normal(jax.random.fold_in(key, i), (5, n))
        return Task(Batch(draw(2, 3), draw(3, 2)), Batch(draw(4, 3), draw(5, 2)))


def test_stateful_outer_loss_starts_from_its_own_state():
    """It starts from its own, as it does for every task."""
    _, params, task = mlp_case()
    plain = lambda params, batch: normalised_loss(params, batch, state=stateful().state)[0]
    algorithm = fomaml(plain, InnerLoop(SGD, 1), outer_loss_fn=stateful())
    adapted = algorithm.adapt(params, task.support)
    wanted = jax.grad(plain)(adapted, task.query)
    same(algorithm.meta_grad(params, task)[0], wanted)
    same(algorithm.query_loss(adapted, task.query), plain(adapted, task.query))


@pytest.mark.parametrize("chunk", [1, 2])
def test_outer_loop_gives_each_task_its_own_key(chunk: int):
    """The update is that of the mean by hand; stopping between updates changes nothing."""
    _, params, _ = mlp_case()
    algorithm, tasks = maml(Loss(dropout_loss, random=True), InnerLoop(SGD, 2)), Lines()
    loop = OuterLoop(algorithm, optax.sgd(1.0), tasks, meta_batch=4, chunk=chunk)
    expected, meta_grad = params, jax.jit(algorithm.meta_grad)
    for step in range(2):
        keys = task_keys(KEY, jnp.asarray(step), 4)
        grads = [meta_grad(expected, tasks.sample(k), key=loss_key(k))[0] for k in keys]
        expected = jax.tree.map(lambda p, *g: p - sum(g) / 4, expected, *grads)
    together, _ = loop.run(loop.init(params, KEY), 2)
    state, _ = loop.run(loop.init(params, KEY), 1)
    apart, _ = loop.run(state, 1)
    same(together.params, expected)
    same(apart.params, expected)


def test_auxiliary_outputs_are_averaged_over_tasks():
    _, params, _ = mlp_case()
    algorithm, tasks = maml(stateful(), InnerLoop(SGD, 2)), Lines()
    loop = OuterLoop(algorithm, optax.sgd(0.0), tasks, meta_batch=4)
    _, info = loop.run(loop.init(params, KEY), 1)
    drawn = [tasks.sample(k) for k in task_keys(KEY, jnp.asarray(0), 4)]
    meta_grad = jax.jit(algorithm.meta_grad)
    each = [meta_grad(params, task)[1].aux["largest"] for task in drawn]
    same(info.aux["largest"], jnp.stack([sum(each) / 4]))


def test_evaluation_randomness_depends_only_on_task():
    _, params, _ = mlp_case()
    algorithm, tasks = maml(Loss(dropout_loss, random=True), InnerLoop(SGD, 2)), Lines()
    one, other = (evaluate(algorithm, params, tasks, key=KEY, num_tasks=4, chunk=c) for c in (1, 2))
    same(one.scores["loss"], other.scores["loss"])
    key = jax.random.fold_in(KEY, 3)
    adapted = algorithm.adapt(params, tasks.sample(key).support, key=loss_key(key))
    same(one.scores["loss"][3, 2], algorithm.query_loss(adapted, tasks.sample(key).query, key=loss_key(key)))


@pytest.mark.parametrize(
    ("loss", "message"),
    [
        (Loss(dropout_loss, random=True), "random and needs a key"),
        (Loss(lambda p, b: p["head"]["b"].sum(), aux=True), r"must return \(loss, auxiliary outputs\)"),
        (
            Loss(lambda p, b, state: (p["head"]["b"].sum(),), state=0.0),
            r"must return \(loss, new state\), got 1",
        ),
        (
            Loss(lambda p, b, state: (p["head"]["b"].sum(), (state,)), state=0.0),
            "structure, shapes and dtypes",
        ),
        (Loss(lambda p, b, state: (p["head"]["b"].sum(), state[None]), state=jnp.ones(2)), r"\[1, 2\] after"),
    ],
)
def test_invalid_losses_raise(loss: Loss, message: str):
    _, params, task = mlp_case()
    with pytest.raises(InnerloopError, match=message):
        maml(loss, InnerLoop(SGD)).meta_grad(params, task)


def test_stateful_loss_can_be_called_directly():
    _, params, task = mlp_case()
    state = {"mean": normal(1)(3), "calls": jnp.zeros((), jnp.int32)}
    assert (
        stateful()(Adapted(params, state), task.query) == normalised_loss(params, task.query, state=state)[0]
    )
    assert stateful()(params, task.query) == normalised_loss(params, task.query, state=stateful().state)[0]
