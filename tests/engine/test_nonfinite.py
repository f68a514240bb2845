"""A NaN cell, a feature far too large, a step too long: nothing goes on with what they leave."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from innerloop.algorithms import fomaml, joint, maml, reptile
from innerloop.engine.diagnosis import (
    Diverged,
    Place,
    locate_in_gradient,
    locate_in_layers,
    locate_in_parameters,
)
from innerloop.engine.evaluation.evaluate import evaluate
from innerloop.engine.inner.inner_loop import InnerLoop
from innerloop.engine.outer.outer_loop import OuterLoop
from innerloop.engine.types import Batch, Task
from innerloop.errors import InnerloopError
from innerloop.learner.learner import Learner
from innerloop.nn.losses import mean_squared_error
from innerloop.tasks.class_arrays import ClassArrays
from innerloop.tasks.streaming import StreamedEpisodes, StreamedOuterLoop

KEY = jax.random.key(0)
PARAMS = {"w": jnp.zeros((2, 1))}
LOSS = mean_squared_error(lambda params, x: x @ params["w"])
TABLES, ROWS, BATCH = 12, 8, 4


class Tables:
    """Every task is one table of eight rows, half of them for the support set."""

    def __init__(self, table: int = -1, row: int = 0, value: float = np.nan):
        draw = np.random.default_rng(0).normal
        self.x, self.y = draw(size=(TABLES, ROWS, 2)), draw(size=(TABLES, ROWS, 1))
        if table >= 0:
            self.x[table, row, 1] = value

    def table(self, key: jax.Array) -> jax.Array:
        return jax.random.randint(key, (), 0, TABLES)

    def sample(self, key: jax.Array) -> Task:
        x, y = self.x[self.table(key)], self.y[self.table(key)]
        return Task(Batch(x[:4], y[:4]), Batch(x[4:], y[4:]))


def drawn(update: int) -> list[int]:
    """The tables of one update (from 1)."""
    keys = jax.random.split(jax.random.fold_in(KEY, update - 1), BATCH)
    return [int(Tables().table(key)) for key in keys]


def once(updates: int = 8) -> tuple[int, int, int]:
    """A table that is first drawn after the first update; that update, and the task's number in it."""
    for update in range(3, updates):
        before = {table for i in range(1, update) for table in drawn(i)}
        for number, table in enumerate(drawn(update)):
            if table not in before:
                return table, update, number
    raise AssertionError("no such table")


TABLE, UPDATE, NUMBER = once()


def loop(tasks: Any, make: Callable = maml, rate: float = 0.1, optimizer: Any = None) -> OuterLoop:
    algorithm = make(LOSS, InnerLoop(optax.sgd(rate), 2))
    return OuterLoop(algorithm, optax.sgd(0.01) if optimizer is None else optimizer, tasks, meta_batch=BATCH)


@pytest.mark.parametrize(
    ("make", "row", "value", "where"),
    [
        (maml, 0, np.nan, "inner step 0 of task {}.*, in its data"),
        (maml, 5, np.nan, "the query loss or its gradient of task {}.*, in its data"),
        (maml, 0, 1e12, "inner step 1 of task {}"),
        (fomaml, 5, np.inf, "the query loss or its gradient of task {}.*, in its data"),
        (reptile, 3, np.nan, "inner step 0 of task {}.*, in its data"),
        (joint, 5, np.nan, "the query loss or its gradient of task {}.*, in its data"),
    ],
)
def test_divergence_error_names_update_task_and_step(make: Callable, row: int, value: float, where: str):
    outer = loop(Tables(TABLE, row, value), make)
    with pytest.raises(InnerloopError, match=f"update {UPDATE} diverged, in {where.format(NUMBER)}"):
        outer.run(outer.init(PARAMS, KEY), 8)


def test_divergence_error_keeps_previous_state():
    """The call consumed its state; the error holds it, and it goes on once the data are mended."""
    outer, mended = loop(Tables(TABLE)), loop(Tables())
    state, _ = outer.run(outer.init(PARAMS, KEY), 1)
    with pytest.raises(Diverged) as error:
        outer.run(state, 7)
    assert error.value.before is not None
    assert int(error.value.before.step) == 1
    found, _ = mended.run(error.value.before, 7)
    wanted, _ = mended.run(mended.init(PARAMS, KEY), 8)
    np.testing.assert_allclose(found.params["w"], wanted.params["w"], rtol=1e-6)


def test_update_numbers_count_across_runs():
    outer = loop(Tables(TABLE))
    state, _ = outer.run(outer.init(PARAMS, jax.random.PRNGKey(0)), 1)  # an old key
    state, _ = outer.run(state, UPDATE - 2)
    with pytest.raises(InnerloopError, match=f"update {UPDATE} diverged, in inner step 0 of task {NUMBER}"):
        outer.run(state, 1)


def test_overflowing_optimizer_is_reported():
    """All losses and gradients are finite; the parameters after the step are not."""
    outer = loop(Tables(), optimizer=optax.chain(optax.scale(1e30), optax.sgd(1e30)))
    with pytest.raises(
        Diverged, match="update 1 diverged, in the outer update of `w`; lower the optimizer's"
    ):
        outer.run(outer.init(PARAMS, KEY), 1)


def test_diverging_inner_loop_is_reported():
    outer = loop(Tables(), rate=1e20)
    with pytest.raises(
        InnerloopError, match="update 1 diverged, in inner step 1 of task 0 .*, at the loss, got outer"
    ):
        outer.run(outer.init(PARAMS, KEY), 2)


def test_nonfinite_initial_parameters_are_reported():
    """Nor on its data, and no step size would help."""
    outer, lost = loop(Tables()), {"w": PARAMS["w"].at[0].set(jnp.nan)}
    task, where = Tables().sample(KEY), "in the parameters before any step, at `w`"
    calls = {
        "OuterLoop.run: update 1 diverged,": lambda: outer.run(outer.init(lost, KEY), 1),
        "MAML.adapt: diverged": lambda: outer.algorithm.adapt(lost, task.support),
        "MAML.meta_grad: diverged": lambda: outer.algorithm.meta_grad(lost, task),
        r"evaluate: task 0 \(counted from 0\) is not finite": lambda: evaluate(
            outer.algorithm, lost, Tables(), key=KEY, num_tasks=2
        ),
    }
    for who, call in calls.items():
        with pytest.raises(Diverged, match=f"{who} {where}.*; check the parameters that were given"):
            call()
    assert locate_in_parameters(lost["w"]) == Place("parameters", "the parameters before any step")


def test_on_nonfinite_ignore_returns_diverged_state():
    outer = loop(Tables(TABLE))
    state, info = outer.run(outer.init(PARAMS, KEY), 8, on_nonfinite="ignore")
    assert np.isfinite(np.asarray(info.outer_loss)).tolist() == [i < UPDATE - 1 for i in range(8)]
    assert not np.isfinite(np.asarray(state.params["w"])).all()


def test_failed_diagnosis_still_reports_divergence(monkeypatch: pytest.MonkeyPatch):
    outer = loop(Tables(TABLE))
    monkeypatch.setattr(outer, "tasks_of_update", lambda *given: 1 / 0)
    with pytest.raises(
        InnerloopError, match=f"update {UPDATE} diverged, in inner step 0, got outer loss nan"
    ):
        outer.run(outer.init(PARAMS, KEY), 8)


def test_nan_in_streamed_episodes_is_reported():
    """A memory map is not checked when it is opened: the NaN is found where it is first read."""
    images = np.random.default_rng(0).normal(size=(12, 2, 1, 1)).astype(np.float32)
    starts, counts = np.arange(0, 12, 4, dtype=np.int32), np.full(3, 4, np.int32)
    arrays = ClassArrays(images, starts, counts, ("a", "b", "c"))
    images[5] = np.nan
    apply = lambda params, x: x.reshape(len(x), -1) @ params["w"]
    loss = mean_squared_error(lambda params, x: apply(params, x)[:, 0])
    algorithm = maml(
        lambda params, batch: loss(params, batch._replace(targets=1.0 * batch.targets)),
        InnerLoop(optax.sgd(0.1), 1),
    )
    with (
        StreamedOuterLoop(
            algorithm, optax.sgd(0.1), StreamedEpisodes(arrays, 2, 1, 1), meta_batch=2
        ) as outer,
        pytest.raises(
            InnerloopError, match=r"update \d diverged, in .* of task \d of the meta-batch .*, in its data"
        ),
    ):
        outer.run(outer.init(PARAMS, KEY), 6)


def test_evaluate_names_first_nonfinite_task():
    """By its number and inner step; on demand all are kept, and marked."""
    algorithm = maml(LOSS, InnerLoop(optax.sgd(0.1), 2))
    keys = [jax.random.fold_in(KEY, i) for i in range(20)]
    hit = [int(Tables().table(key)) == TABLE for key in keys]
    first, count = hit.index(True), sum(hit)
    for row, where in ((0, "inner step 0, in its data"), (6, "its query data")):
        spoilt = Tables(TABLE, row)
        wanted = rf"evaluate: task {first} \(counted from 0\) is not finite in {where}, got {count} such tasks of 20"
        with pytest.raises(InnerloopError, match=wanted):
            evaluate(algorithm, PARAMS, spoilt, key=KEY, num_tasks=20)
        kept = evaluate(algorithm, PARAMS, spoilt, key=KEY, num_tasks=20, on_nonfinite="keep")
        assert kept.nonfinite.tolist() == hit
    score = lambda params, task: {"log": jnp.log(-jnp.abs(params["w"].sum()) - 1)}
    with pytest.raises(InnerloopError, match="task 0 .* is not finite in the score, got 2 such tasks of 2"):
        evaluate(algorithm, PARAMS, Tables(), score, key=KEY, num_tasks=2)
    assert not evaluate(algorithm, PARAMS, Tables(), key=KEY, num_tasks=4).nonfinite.any()


def test_adapt_and_meta_grad_report_divergence_outside_jit():
    """`adapt` and `meta_grad` outside of `jit` tell it; inside they are functions like any other."""
    algorithm = maml(LOSS, InnerLoop(optax.sgd(0.1), 2))
    x, y = Tables(0).x[0], Tables(0).y[0]
    spoilt = Task(Batch(x[:4], y[:4]), Batch(x[4:], y[4:]))
    with pytest.raises(
        InnerloopError, match="MAML.adapt: diverged in inner step 0, in its data; check that task's data"
    ):
        algorithm.adapt(PARAMS, spoilt.support)
    with pytest.raises(InnerloopError, match="MAML.meta_grad: diverged in inner step 0, in its data"):
        algorithm.meta_grad(PARAMS, spoilt)
    sound = spoilt._replace(support=spoilt.query)
    with pytest.raises(InnerloopError, match="diverged in inner step 1, at the loss"):
        algorithm.with_inner(rule=optax.sgd(1e20), steps=4).adapt(PARAMS, sound.support)
    assert np.isnan(jax.jit(algorithm.adapt)(PARAMS, spoilt.support)["w"]).all()
    assert np.isnan(
        jax.vmap(algorithm.adapt, (None, 0))(PARAMS, jax.tree.map(lambda x: x[None], spoilt.support))["w"]
    ).all()
    assert np.isfinite(algorithm.adapt(PARAMS, sound.support)["w"]).all()


def test_learner_reports_nonfinite_data_and_divergence():
    x, y = Tables(0, 1).x[0], Tables().y[0]
    learner = Learner(PARAMS, maml(LOSS, InnerLoop(optax.sgd(0.1), 3)))
    with pytest.raises(InnerloopError, match="Learner.fit: x must be finite, got 1 NaN"):
        learner.fit(x, y)
    x[1, 1] = 1e12
    with pytest.raises(Diverged, match="the inner loop diverged at inner step 1, got losses"):
        learner.fit(x, y)
    with pytest.raises(InnerloopError, match="call fit"):
        learner.predict(y)


def test_first_nonfinite_layer_is_named():
    """In the order of the layers; those before it are finite, and the data come before all of them."""
    layers = lambda params, batch: {
        "a": jnp.ones(2),
        "b": jnp.array([1.0, jnp.inf]),
        "c": jnp.full(2, jnp.nan),
    }
    batch = Batch(jnp.ones((1, 2)), jnp.ones((1, 1)))
    algorithm = maml(LOSS, InnerLoop(optax.sgd(0.1)))
    assert locate_in_layers(algorithm, PARAMS, batch, layers) == Place(
        "computation", "at the output of layer `b`"
    )
    assert locate_in_layers(algorithm, PARAMS, batch, lambda params, batch: {"a": jnp.ones(2)}) is None
    lost = batch._replace(targets=batch.targets * jnp.nan)
    assert locate_in_layers(algorithm, PARAMS, lost, layers) == Place("data", "in its data")


def test_nonfinite_query_of_array_tasks_is_reported():
    """Not labelled; the query set is still looked at."""
    algorithm = maml(lambda params, x: jnp.mean(jnp.square(x @ params["w"])), InnerLoop(optax.sgd(0.1)))
    lost = Task(jnp.ones((2, 2)), jnp.full((2, 2), jnp.nan))
    with pytest.raises(Diverged, match="query loss .*in its data"):
        algorithm.meta_grad(PARAMS, lost)


def test_locate_in_gradient_names_parameter_nearest_output():
    params = {name: jnp.ones(2) for name in ("a", "b", "c")}
    assert locate_in_gradient(params, [False, False, True]) == "at the gradient of `b`"
    assert locate_in_gradient(params, [True, True, True]) == ""


def test_nonfinite_second_derivative_is_reported():
    """The loss and its gradient are finite, the derivative of the gradient step is not."""
    loss = lambda params, batch: jnp.mean(batch.inputs) * jnp.sum(jnp.abs(params["w"]) ** 1.5)
    task = Task(Batch(jnp.ones((2, 2)), jnp.ones((2, 1))), Batch(jnp.ones((2, 2)), jnp.ones((2, 1))))
    with pytest.raises(Diverged, match="query loss or its gradient.*at the gradient of `w`"):
        maml(loss, InnerLoop(optax.sgd(0.1))).meta_grad(PARAMS, task)
