"""Dropout and batch normalisation of Equinox and Flax NNX inside the inner loop, against their own loops by hand."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from numeric_cases import normal

from innerloop.algorithms import maml
from innerloop.engine.algorithm import QUERY, loss_key
from innerloop.engine.evaluation.evaluate import evaluate
from innerloop.engine.inner.inner_loop import InnerLoop
from innerloop.engine.losses.loss import Loss
from innerloop.engine.outer.outer_loop import OuterLoop
from innerloop.engine.outer.task_draws import task_keys
from innerloop.engine.types import Batch, Task
from innerloop.parallel.mesh import task_mesh

RATE, STEPS, WIDTH = 0.1, 3, 6
INNER = InnerLoop(optax.sgd(RATE), STEPS)
KEY = jax.random.key(7)


class Case(NamedTuple):
    """A model: its parameters, a loss whose auxiliary output is the dropout mask, and a loop as its framework has it.

    `by_hand(x, y)`: leaves of the parameters and of the state, and the losses, after `STEPS` steps.
    """

    params: Any
    loss: Loss
    by_hand: Callable[[jax.Array, jax.Array], tuple[list, list, list]]


class EquinoxModel(eqx.Module):
    first: eqx.nn.Linear
    norm: eqx.nn.BatchNorm
    dropout: eqx.nn.Dropout
    last: eqx.nn.SpectralNorm

    def __init__(self, key: jax.Array):
        one, two, three = jax.random.split(key, 3)
        self.first = eqx.nn.Linear(3, WIDTH, key=one)
        self.norm = eqx.nn.BatchNorm(WIDTH, "batch", mode="batch")
        self.dropout = eqx.nn.Dropout(0.5)
        self.last = eqx.nn.SpectralNorm(eqx.nn.Linear(WIDTH, 2, key=two), "weight", key=three)

    def __call__(self, x: Any, state: eqx.nn.State, key: Any) -> tuple[Any, eqx.nn.State]:
        hidden, state = self.norm(self.first(x), state)
        hidden = self.dropout(hidden, key=key)
        outputs, state = self.last(hidden, state)
        return (outputs, hidden == 0), state


def equinox_loss(model: Any, batch: Batch, key: Any, state: Any) -> Any:
    each = jax.vmap(model, axis_name="batch", in_axes=(0, None, 0), out_axes=(0, None))
    (outputs, mask), state = each(batch.inputs, state, jax.random.split(key, len(batch.inputs)))
    return jnp.mean((outputs - batch.targets) ** 2), (state, mask)


def equinox_case() -> Case:
    make = lambda: eqx.nn.make_with_state(EquinoxModel)(jax.random.key(0))
    model, start = make()
    params, static = eqx.partition(model, eqx.is_inexact_array)

    def fn(params, batch, *, key, state):
        loss, (state, mask) = equinox_loss(eqx.combine(params, static), batch, key, state)
        return loss, state, mask

    def by_hand(x, y):
        (model, state), losses = make(), []
        graded = eqx.filter_jit(eqx.filter_value_and_grad(equinox_loss, has_aux=True))
        for i in range(STEPS):
            (loss, (state, _)), grads = graded(model, Batch(x, y), jax.random.fold_in(KEY, i), state)
            model = eqx.apply_updates(model, jax.tree.map(lambda g: -RATE * g, grads))
            losses.append(loss)
        return jax.tree.leaves(eqx.filter(model, eqx.is_inexact_array)), jax.tree.leaves(state), losses

    return Case(params, Loss(fn, random=True, state=start, aux=True), by_hand)


def nnx_case() -> Case:
    nnx = pytest.importorskip("flax.nnx")

    class Model(nnx.Module):
        def __init__(self, rngs):
            self.first = nnx.Linear(3, WIDTH, param_dtype=jnp.float64, rngs=rngs)
            self.norm = nnx.BatchNorm(WIDTH, momentum=0.5, param_dtype=jnp.float64, rngs=rngs)
            self.dropout = nnx.Dropout(0.5, rngs=rngs)
            self.last = nnx.Linear(WIDTH, 2, param_dtype=jnp.float64, rngs=rngs)

        def __call__(self, x):
            hidden = self.dropout(self.norm(self.first(x)))
            return self.last(hidden), hidden == 0

    def loss_of(model, batch):
        outputs, mask = model(batch.inputs)
        return jnp.mean((outputs - batch.targets) ** 2), mask

    def make():
        model = Model(nnx.Rngs(params=0, dropout=1))
        statistics = nnx.state(model, nnx.BatchStat)  # float32, whatever `param_dtype` is
        nnx.update(model, jax.tree.map(lambda x: x.astype(jnp.float64), statistics))
        return model

    graph, params, statistics, rest = nnx.split(make(), nnx.Param, nnx.BatchStat, ...)

    def fn(params, batch, *, key, state):
        model = nnx.merge(graph, params, state, rest, copy=True)
        nnx.reseed(model, dropout=key)
        loss, mask = loss_of(model, batch)
        return loss, nnx.state(model, nnx.BatchStat), mask

    def by_hand(x, y):
        model, losses = make(), []
        graded = nnx.jit(nnx.value_and_grad(loss_of, has_aux=True))
        for i in range(STEPS):
            nnx.reseed(model, dropout=jax.random.fold_in(KEY, i))
            (loss, _), grads = graded(model, Batch(x, y))
            moved = jax.tree.map(lambda p, g: p - RATE * g, nnx.state(model, nnx.Param), grads)
            nnx.update(model, moved)
            losses.append(loss)
        leaves = lambda kind: jax.tree.leaves(nnx.state(model, kind))
        return leaves(nnx.Param), leaves(nnx.BatchStat), losses

    return Case(params, Loss(fn, random=True, state=statistics, aux=True), by_hand)


@pytest.fixture(scope="module", params=[equinox_case, nnx_case], ids=["equinox", "nnx"])
def case(request: pytest.FixtureRequest) -> Case:
    with jax.enable_x64(True):
        return request.param()


def one_task() -> Task:
    draw = normal(1)
    return Task(Batch(draw(8, 3), draw(8, 2)), Batch(draw(8, 3), draw(8, 2)))


class Tasks:
    def sample(self, key: jax.Array) -> Task:
        draw = lambda i, n: jax.random.normal(jax.random.fold_in(key, i), (8, n))
        return Task(Batch(draw(2, 3), draw(3, 2)), Batch(draw(4, 3), draw(5, 2)))


def same(a: Any, b: Any, tolerance: float = 1e-10) -> None:
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, tolerance, tolerance), a, b)


def test_inner_loop_matches_framework_training_loop(case: Case):
    task = one_task()
    algorithm = maml(case.loss, INNER)
    trajectory = algorithm.trajectory(case.params, task.support, key=KEY)
    params, state, losses = case.by_hand(task.support.inputs, task.support.targets)
    adapted = algorithm.adapt(case.params, task.support, key=KEY)
    same((jax.tree.leaves(adapted.params), jax.tree.leaves(adapted.state)), (params, state))
    same(trajectory.losses, jnp.stack(losses))
    assert not np.allclose(jax.tree.leaves(adapted.state)[-1], jax.tree.leaves(case.loss.state)[-1])


def test_dropout_mask_differs_between_steps_and_query(case: Case):
    task = one_task()._replace(query=one_task().support)
    algorithm = maml(case.loss, INNER)
    masks = [*algorithm.trajectory(case.params, task.support, key=KEY).aux]
    masks.append(algorithm.meta_grad(case.params, task, key=KEY)[1].aux)
    assert all(0 < mask.mean() < 1 for mask in masks)
    assert len({np.asarray(mask).tobytes() for mask in masks}) == STEPS + 1


def test_adapt_is_deterministic_for_a_given_key(case: Case):
    task, algorithm = one_task(), maml(case.loss, INNER)
    adapt = lambda key: jax.tree.map(np.asarray, algorithm.adapt(case.params, task.support, key=key))
    one, again, other = adapt(KEY), adapt(KEY), adapt(jax.random.key(8))
    assert all(map(np.array_equal, jax.tree.leaves(one), jax.tree.leaves(again)))
    assert not all(map(np.array_equal, jax.tree.leaves(one.params), jax.tree.leaves(other.params)))


def test_outer_loop_averages_meta_gradients_and_resumes(case: Case):
    """Two updates at once on one device, one after the other on two, and by the meta-gradients of the tasks."""
    algorithm, tasks = maml(case.loss, INNER), Tasks()
    make = partial(OuterLoop, algorithm, optax.sgd(0.1), tasks, meta_batch=2)
    loop = make(mesh=task_mesh(2, jax.devices()[:1]))
    together, info = loop.run(loop.init(case.params, KEY), 2)
    expected, meta_grad = case.params, jax.jit(algorithm.meta_grad)
    for step in range(2):
        keys = task_keys(KEY, jnp.asarray(step), 2)
        grads = [meta_grad(expected, tasks.sample(k), key=loss_key(k))[0] for k in keys]
        expected = jax.tree.map(lambda p, *g: p - 0.1 * sum(g) / 2, expected, *grads)
    same(together.params, expected)
    assert info.aux.shape == (2, 8, WIDTH)
    on_two = make()
    first, _ = on_two.run(loop.init(case.params, KEY), 1)
    resumed, _ = on_two.run(first, 1)
    same(resumed.params, expected)


def test_evaluate_starts_each_task_from_initial_statistics(case: Case):
    algorithm, tasks = maml(case.loss, INNER), Tasks()
    curve = evaluate(algorithm, case.params, tasks, key=KEY, num_tasks=2)
    key = jax.random.fold_in(KEY, 1)
    task = tasks.sample(key)
    adapted = algorithm.adapt(case.params, task.support, key=loss_key(key))
    # The loss may be asked of one adapted state as often as one likes.
    losses = [algorithm.query_loss(adapted, task.query, key=loss_key(key)) for _ in range(2)]
    same(losses, [curve.scores["loss"][1, STEPS]] * 2)
    same(losses[0], case.loss(adapted, task.query, key=jax.random.fold_in(loss_key(key), QUERY)))


def test_maml_adapts_flax_rnn():
    nnx = pytest.importorskip("flax.nnx")
    cell = nnx.LSTMCell(3, 4, param_dtype=jnp.float64, rngs=nnx.Rngs(0))
    graph, params, rest = nnx.split(nnx.RNN(cell), nnx.Param, ...)

    def loss(params, batch):
        return jnp.mean(nnx.merge(graph, params, rest, copy=True)(batch.inputs) ** 2)

    task = Task(*(Batch(x, x) for x in normal(2)(2, 2, 5, 3)))
    algorithm = maml(loss, INNER)
    assert algorithm.meta_grad(params, task)[1].inner_losses.shape == (STEPS,)
    by_hand, slope = params, jax.jit(jax.grad(loss))
    for _ in range(STEPS):
        grads = slope(by_hand, task.support)
        by_hand = jax.tree.map(lambda p, g: p - RATE * g, by_hand, grads)
    same(algorithm.adapt(params, task.support), by_hand, 1e-6)
