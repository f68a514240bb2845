"""Every method against its objective written by hand: in every derivative mode, in chunks, on one and two devices."""

from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple

import jax
import jax.flatten_util
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from numeric_cases import assert_close, mlp, normal

from innerloop.algorithms import cavia, imaml, maml_plus_plus, meta_sgd, online_maml, protomaml
from innerloop.engine.algorithm import Algorithm
from innerloop.engine.inner.inner_loop import Derivative, InnerLoop
from innerloop.engine.learned_rates import WithRates
from innerloop.engine.outer.outer_loop import OuterLoop
from innerloop.engine.outer.task_draws import task_keys
from innerloop.engine.types import Batch, Task
from innerloop.nn.losses import cross_entropy, mean_squared_error
from innerloop.parallel.mesh import task_mesh

KEY, TASKS, STEPS, RATE, WAYS = jax.random.key(3), 4, 2, 0.1, 3

LAYOUTS: list[tuple[Derivative, int | None, int]] = [
    ("unrolled", None, 1),
    ("rematerialised", 1, 2),
    ("mixed", 2, 2),
    ("mixed", 1, 1),
]
"""Derivative mode, chunk, devices."""


class Drawn(NamedTuple):
    """Tasks of fixed shapes: regressions, or three classes."""

    classes: bool = False

    def sample(self, key: jax.Array) -> Task:
        draw = lambda i, *shape: jax.random.normal(jax.random.fold_in(key, i), shape, jnp.float64)
        wanted = lambda i: jnp.arange(6) % WAYS if self.classes else draw(i, 6, 2)
        return Task(Batch(draw(0, 6, 3), wanted(1)), Batch(draw(2, 6, 3), wanted(3)))


def weights() -> dict[str, Any]:
    draw = normal(0)
    return {"body": {"w": draw(3, 4), "b": draw(4)}, "head": {"w": draw(4, 2), "b": draw(2)}}


def with_context(params: Any, x: jax.Array) -> jax.Array:
    beside = jnp.broadcast_to(params["context"], (len(x), 2))
    return mlp(params["shared"], jnp.concatenate([x[:, :1], beside], 1))


def embed(params: Any, x: jax.Array) -> jax.Array:
    return jnp.tanh(x @ params["body"]["w"] + params["body"]["b"])


def with_head(params: Any, w: jax.Array, b: jax.Array) -> Any:
    return {"body": params["body"], "head": {"w": w, "b": b}}


def descend(loss: Callable, params: Any, rates: Any) -> Any:
    grads = jax.grad(loss)(params)
    return jax.tree.map(lambda p, g, r: p - r * g, params, grads, rates)


SQUARES, ENTROPY, CONTEXT = mean_squared_error(mlp), cross_entropy(mlp), mean_squared_error(with_context)


def meta_sgd_by_hand(meta: Any, task: Task) -> jax.Array:
    theta = meta.model
    for _ in range(STEPS):
        theta = descend(lambda p: SQUARES(p, task.support), theta, meta.rates)
    return SQUARES(theta, task.query)


def maml_plus_plus_by_hand(meta: Any, task: Task) -> jax.Array:
    """At the first of ten updates the two steps have a half each."""
    theta, total = meta.model, jnp.zeros(())
    for i in range(STEPS):
        rates = jax.tree.map(lambda r, i=i: r[i], meta.rates)
        theta = descend(lambda p: SQUARES(p, task.support), theta, rates)
        total += SQUARES(theta, task.query) / 2
    return total


def cavia_by_hand(meta: Any, task: Task) -> jax.Array:
    context = jax.lax.stop_gradient(meta["context"])
    loss = lambda c, batch: CONTEXT({"shared": meta["shared"], "context": c}, batch)
    for _ in range(STEPS):
        context = context - RATE * jax.grad(loss)(context, task.support)
    return loss(context, task.query)


def online_by_hand(meta: Any, task: Task) -> jax.Array:
    """The items of the stream are single examples."""
    theta, total = meta, jnp.zeros(())
    for i in range(6):
        item = Batch(task.support.inputs[i], task.support.targets[i])
        loss = lambda p, item=item: jnp.sum(jnp.square(mlp(p, item.inputs) - item.targets))
        total += loss(theta) / 6
        theta = descend(loss, theta, jax.tree.map(lambda x: RATE, theta))
    return total


def protomaml_by_hand(meta: Any, task: Task) -> jax.Array:
    features = embed(meta, task.support.inputs)
    means = jnp.stack([features[np.arange(6) % WAYS == k].mean(0) for k in range(WAYS)])
    theta = with_head(meta, 2 * means.T, -(means**2).sum(1))
    for _ in range(STEPS):
        theta = descend(lambda p: ENTROPY(p, task.support), theta, jax.tree.map(lambda x: RATE, theta))
    return ENTROPY(theta, task.query)


def imaml_by_hand(meta: Any, task: Task) -> Any:
    """The solution by Newton's method, and the system by its dense matrix, one number after the other."""
    theta, back = jax.flatten_util.ravel_pytree(meta)
    loss = lambda w: SQUARES(back(w), task.support) + PROXIMAL / 2 * jnp.sum(jnp.square(w - theta))
    newton = lambda _, w: w - jnp.linalg.solve(jax.hessian(loss)(w), jax.grad(loss)(w))
    w = jax.lax.fori_loop(0, 30, newton, theta)
    v = jax.grad(lambda w: SQUARES(back(w), task.query))(w)
    return back(jnp.linalg.solve(jax.hessian(loss)(w) / PROXIMAL, v))


PROXIMAL = 30.0
"""Strong enough for the inner problem to be convex."""


class Method(NamedTuple):
    make: Callable[[InnerLoop], Algorithm]
    by_hand: Callable[[Any, Task], Any]
    tasks: Drawn = Drawn()
    rule: optax.GradientTransformation = optax.sgd(RATE)
    steps: int = STEPS


def regression_on_items(params: Any, item: Batch) -> jax.Array:
    return jnp.sum(jnp.square(mlp(params, item.inputs) - item.targets))


ONE = optax.sgd(1.0)
METHODS = {
    "meta_sgd": Method(lambda inner: meta_sgd(SQUARES, inner, rates=RATE), meta_sgd_by_hand, rule=ONE),
    "maml_plus_plus": Method(
        lambda inner: maml_plus_plus(SQUARES, inner, rates=RATE, multi_step_updates=10),
        maml_plus_plus_by_hand,
        rule=ONE,
    ),
    "cavia": Method(lambda inner: cavia(CONTEXT, inner), cavia_by_hand),
    "online_maml": Method(lambda inner: online_maml(regression_on_items, inner), online_by_hand, steps=6),
    "protomaml": Method(
        lambda inner: protomaml(ENTROPY, inner, ways=WAYS, embed=embed, with_head=with_head),
        protomaml_by_hand,
        Drawn(classes=True),
    ),
    "imaml": Method(
        lambda inner: imaml(SQUARES, inner, proximal=PROXIMAL, cg_steps=30),
        imaml_by_hand,
        rule=optax.sgd(0.02),
        steps=120,
    ),
}


def start(name: str) -> Any:
    """Parameters; for CAVIA with a context, and for ProtoMAML with a head of three outputs."""
    if name == "cavia":
        return {"shared": weights(), "context": jnp.zeros(2)}
    if name == "protomaml":
        return weights() | {"head": {"w": normal(1)(4, WAYS), "b": normal(2)(WAYS)}}
    return weights()


def meta_params(name: str, algorithm: Algorithm) -> Any:
    """Meta-parameters, with step sizes that differ."""
    meta = algorithm.init(start(name))
    if not isinstance(meta, WithRates):
        return meta
    draw = np.random.default_rng(7).uniform
    return WithRates(meta.model, jax.tree.map(lambda r: jnp.asarray(draw(0.02, 0.2, r.shape)), meta.rates))


@cache
def by_hand(name: str) -> tuple[Any, float | None]:
    """The mean over the tasks of the gradient, and of the objective unless the gradient alone is written out."""
    method = METHODS[name]
    meta = meta_params(name, method.make(InnerLoop(method.rule, STEPS)))
    drawn = [method.tasks.sample(key) for key in task_keys(KEY, jnp.asarray(0), TASKS)]
    whole = method.by_hand if name == "imaml" else jax.value_and_grad(method.by_hand)
    each = [jax.jit(whole)(meta, task) for task in drawn]
    mean = jax.tree.map(lambda *x: sum(x) / TASKS, *each)
    return (mean, None) if name == "imaml" else (mean[1], mean[0])


@pytest.mark.parametrize(("derivative", "chunk", "devices"), LAYOUTS)
@pytest.mark.parametrize("name", METHODS)
def test_mean_meta_gradient_matches_handwritten_objective(
    name: str, derivative: Derivative, chunk: int | None, devices: int
):
    """An outer step of size 1 subtracts the mean over tasks of the gradient by hand."""
    method, (expected, loss) = METHODS[name], by_hand(name)
    algorithm = method.make(InnerLoop(method.rule, method.steps, derivative=derivative))
    meta, mesh = meta_params(name, algorithm), task_mesh(TASKS, jax.devices()[:devices])
    loop = OuterLoop(algorithm, optax.sgd(1.0), method.tasks, meta_batch=TASKS, chunk=chunk, mesh=mesh)
    state, info = loop.run(loop.start(meta, KEY), 1)
    assert_close(jax.tree.map(jnp.subtract, meta, state.params), expected, 1e-10)
    if loss is not None:
        np.testing.assert_allclose(info.outer_loss[0], loss, rtol=1e-10)
