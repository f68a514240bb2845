"""The outer loop takes a mean: the order of tasks, chunks and devices change nothing but rounding."""

from functools import cache
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from numeric_cases import assert_close, flat, mlp, normal, sgd

from innerloop.algorithms import fomaml, maml, reptile
from innerloop.engine.outer import chunking, task_draws
from innerloop.engine.outer.outer_loop import OuterLoop
from innerloop.engine.pytree import global_norm
from innerloop.engine.types import Batch, Task
from innerloop.nn.losses import mean_squared_error
from innerloop.parallel.mesh import REPLICATED, SPLIT, mean_over_devices, task_mesh
from innerloop.parallel.param_sharding import on_mesh

TASKS = 8


class Linear(NamedTuple):
    """Tasks whose targets are scaled by the key; a pytree, as distributions of arrays are."""

    inputs: jax.Array
    targets: jax.Array

    def sample(self, key: jax.Array) -> Task:
        scale = jax.random.uniform(key, minval=0.5, maxval=2.0)
        batch = Batch(self.inputs, self.targets * scale)
        return Task(batch, jax.tree.map(lambda x: x[::-1] + 0.1, batch))


def problem() -> tuple[Any, Any, Linear]:
    draw = normal(5)
    params = {"body": {"w": draw(3, 4), "b": draw(4)}, "head": {"w": draw(4, 2), "b": draw(2)}}
    return mean_squared_error(mlp), params, Linear(draw(5, 3), draw(5, 2))


def mean_gradient(chunk: int | None, devices: int, make=maml) -> Any:
    """The meta-gradient that a plain step of size 1 subtracts."""
    loss, params, distribution = problem()
    loop = OuterLoop(
        make(loss, sgd(2)),
        optax.sgd(1.0),
        distribution,
        meta_batch=TASKS,
        chunk=chunk,
        mesh=task_mesh(TASKS, jax.devices()[:devices]),
    )
    state, _ = loop.run(loop.init(params, jax.random.key(3)), 1)
    return jax.tree.map(jnp.subtract, params, state.params)


@cache
def mean_one_by_one() -> Any:
    """The mean of single gradients, one task at a time in Python."""
    loss, params, distribution = problem()
    algorithm = maml(loss, sgd(2))
    one = jax.jit(lambda key: algorithm.meta_grad(params, distribution.sample(key))[0])
    keys = jax.random.split(jax.random.fold_in(jax.random.key(3), 0), TASKS)
    return jax.tree.map(lambda *g: np.mean(np.stack(g), 0), *[one(key) for key in keys])


@pytest.mark.parametrize(("chunk", "devices"), [(1, 1), (2, 1), (None, 1), (1, 2), (4, 2)])
def test_mean_gradient_is_independent_of_chunks_and_devices(chunk: int | None, devices: int):
    assert_close(mean_gradient(chunk, devices), mean_one_by_one(), 1e-13)


def test_batched_reptile_averages_serial_displacements():
    loss, params, distribution = problem()
    algorithm = reptile(loss, sgd(2))
    one = jax.jit(lambda key: algorithm.adapt(params, distribution.sample(key).support))
    keys = jax.random.split(jax.random.fold_in(jax.random.key(3), 0), TASKS)
    moved = [flat(one(key)) for key in keys]
    batched = flat(mean_gradient(2, 2, reptile))
    np.testing.assert_allclose(batched, flat(params) - np.mean(moved, 0), rtol=1e-10, atol=1e-13)


def test_mean_gradient_is_invariant_to_task_order():
    """The mean over tasks is the same for every order of them, and another set of tasks gives another."""
    loss, params, distribution = problem()
    algorithm = fomaml(loss, sgd(2))
    one = lambda key: algorithm.meta_grad(params, distribution.sample(key))
    mean = jax.jit(lambda keys: chunking.mean_in_chunks(one, keys, 2)[0])
    keys = jax.random.split(jax.random.key(4), TASKS)
    order = np.random.default_rng(0).permutation(TASKS)
    assert_close(mean(keys[order]), mean(keys), 1e-13)
    different = mean(jax.random.split(jax.random.key(5), TASKS))
    assert np.abs(flat(different) - flat(mean(keys))).max() > 1e-3


@pytest.mark.parametrize(("bytes_kept", "ahead"), [(0, 1), (7000, 2), (10**6, 6)])
def test_drawing_tasks_ahead_does_not_change_the_run(
    bytes_kept: int, ahead: int, monkeypatch: pytest.MonkeyPatch
):
    """Six meta-steps drawn one at a time from their keys, two at a time, or all at once: the same run."""
    loss, params, distribution = problem()
    monkeypatch.setattr(task_draws, "AHEAD_BYTES", bytes_kept)
    draw, keys = distribution.sample, jax.random.split(jax.random.key(0), TASKS)
    assert task_draws.steps_ahead(draw, keys, 6) == ahead
    loop = OuterLoop(maml(loss, sgd(2)), optax.adam(1e-2), distribution, meta_batch=TASKS)
    state, info = loop.run(loop.init(params, jax.random.key(3)), 6)
    assert info.outer_loss.shape == (6,)
    assert int(state.step) == 6
    one = loop.init(params, jax.random.key(3))
    for i in range(6):
        one, each = loop.run(one, 1)
        np.testing.assert_allclose(each.outer_loss[0], info.outer_loss[i], rtol=1e-12)
    assert_close(state.params, one.params, 1e-12)


def test_tasks_without_queries_are_drawn_ahead():
    """Reptile's training tasks hold no query example: arrays of size zero are split over chunks like any other."""
    loss, params, distribution = problem()

    class NoQueries(Linear):
        def sample(self, key: jax.Array) -> Task:
            task = super().sample(key)
            return task._replace(query=jax.tree.map(lambda x: x[:0], task.query))

    states = []
    for tasks in (distribution, NoQueries(*distribution)):
        loop = OuterLoop(reptile(loss, sgd(2)), optax.sgd(1.0), tasks, meta_batch=4, chunk=2)
        states.append(loop.run(loop.init(params, jax.random.key(3)), 2)[0])
    assert_close(states[1].params, states[0].params, 1e-13)


@pytest.mark.parametrize(("dtype", "slope"), [(jnp.bfloat16, 1), (jnp.float16, 100)])
def test_half_precision_mean_over_many_tasks_is_exact(dtype: Any, slope: int):
    """A sum in bfloat16 would stop at 256, and one in float16 would overflow at 65 504."""
    one = lambda item: jnp.full(2, slope * item, dtype)
    for chunk in (1, 512, 1024):
        mean = jax.jit(lambda items, chunk=chunk: chunking.mean_in_chunks(one, items, chunk))(jnp.ones(1024))
        assert mean.dtype == dtype
        np.testing.assert_array_equal(mean.astype(float), slope)
    assert global_norm(jnp.full(1024, 100, dtype)) == 3200


@pytest.mark.parametrize("devices", [2, 4])
def test_half_precision_mean_over_devices_does_not_overflow(devices: int):
    """Two means near the largest float16 have a mean, too."""
    mesh = task_mesh(devices, jax.devices()[:devices])
    mean = on_mesh(lambda x: mean_over_devices(x[0]), mesh, SPLIT, REPLICATED)(
        jnp.full(devices, 6e4, jnp.float16)
    )
    assert (mean.dtype, float(mean)) == (jnp.float16, float(jnp.float16(6e4)))
