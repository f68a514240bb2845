"""CAVIA and online MAML, against ANIL, joint training and loops written by hand."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from numeric_cases import assert_close, differ, flat, mlp, mlp_case, normal

from innerloop.algorithms import anil, cavia, joint, online_maml
from innerloop.algorithms.online_maml import OnlineMAML
from innerloop.algorithms.testing.meta_gradient import check_meta_gradient
from innerloop.engine.algorithm import QUERY
from innerloop.engine.inner.inner_loop import InnerLoop
from innerloop.engine.losses.loss import Loss
from innerloop.engine.outer.outer_loop import OuterLoop
from innerloop.engine.outer.task_draws import task_keys
from innerloop.engine.types import Batch, Task
from innerloop.errors import InnerloopError
from innerloop.nn.losses import mean_squared_error

RATE, STEPS = 0.1, 3
SGD = optax.sgd(RATE)


def with_context(params: Any, x: jax.Array) -> jax.Array:
    beside = jnp.broadcast_to(params["context"], (len(x), 2))
    return mlp(params["shared"], jnp.concatenate([x[:, :1], beside], 1))


def context_case() -> tuple[Any, Any, Task]:
    _, shared, task = mlp_case()
    return mean_squared_error(with_context), {"shared": shared, "context": jnp.zeros(2)}, task


def test_cavia_matches_anil_with_constant_initial_context():
    loss, params, task = context_case()
    grads, info = jax.jit(cavia(loss, InnerLoop(SGD, STEPS)).meta_grad)(params, task)
    expected, other = jax.jit(anil(loss, InnerLoop(SGD, STEPS), head="context").meta_grad)(params, task)
    assert_close(grads["shared"], expected["shared"], 1e-13)
    assert np.any(expected["context"])
    assert not np.any(grads["context"])
    np.testing.assert_allclose(info.outer_loss, other.outer_loss, rtol=1e-14)


def test_cavia_adapts_only_context():
    loss, params, task = context_case()
    adapted: Any = cavia(loss, InnerLoop(SGD, STEPS)).adapt(params, task.support)
    jax.tree.map(np.testing.assert_array_equal, adapted["shared"], params["shared"])
    assert np.all(np.abs(adapted["context"]) > 1e-3)


def test_cavia_accepts_any_context_selection():
    """Two arrays of context, and a start other than zero."""
    loss, params, task = mlp_case()
    algorithm = cavia(loss, InnerLoop(SGD, STEPS), context=["body/b", "head/b"])
    expected = jax.jit(anil(loss, InnerLoop(SGD, STEPS), head=["body/b", "head/b"]).meta_grad)(params, task)[
        0
    ]
    grads = jax.jit(algorithm.meta_grad)(params, task)[0]
    for part in ("body", "head"):
        assert_close(grads[part]["w"], expected[part]["w"], 1e-13)
        assert not np.any(grads[part]["b"])


def item_loss(params: Any, item: Batch) -> jax.Array:
    return jnp.mean(jnp.square(mlp(params, item.inputs) - item.targets))


def stream(items: int) -> Task:
    """Items of five examples; no query set."""
    draw = normal(2)
    return Task(Batch(draw(items, 5, 3), draw(items, 5, 2)), None)


def test_online_maml_on_single_item_matches_joint_training():
    _, params, _ = mlp_case()
    task = stream(1)
    found, info = jax.jit(online_maml(item_loss, InnerLoop(SGD, 1)).meta_grad)(params, task)
    item = jax.tree.map(lambda x: x[0], task.support)
    expected, other = joint(item_loss, InnerLoop(SGD)).meta_grad(params, Task(None, item))
    assert_close(found, expected, 1e-14)
    np.testing.assert_allclose(info.outer_loss, other.outer_loss, rtol=1e-14)


def test_online_maml_matches_manual_loop():
    """Each loss is taken before the step that learns from its item; the last step is of no use to any loss."""
    _, params, _ = mlp_case()
    task = stream(4)

    def along(theta: Any) -> tuple[jax.Array, jax.Array]:
        losses: list[jax.Array] = []
        for i in range(4):
            value, grads = jax.value_and_grad(item_loss)(
                theta, jax.tree.map(lambda x, i=i: x[i], task.support)
            )
            losses.append(value)
            theta = jax.tree.map(lambda p, g: p - RATE * g, theta, grads)
        return jnp.stack(losses).mean(), jnp.stack(losses)

    found, info = jax.jit(online_maml(item_loss, InnerLoop(SGD, 4)).meta_grad)(params, task)
    (value, losses), expected = jax.jit(jax.value_and_grad(along, has_aux=True))(params)
    assert_close(found, expected, 1e-12)
    np.testing.assert_allclose(info.outer_loss, value, rtol=1e-13)
    np.testing.assert_allclose(info.inner_losses, losses, rtol=1e-13)
    first = jax.jit(online_maml(item_loss, InnerLoop(SGD, 4, last=0)).meta_grad)(params, task)[0]
    assert differ(first, expected) > 1e-2


def test_random_loss_receives_key_per_item():
    _, params, _ = mlp_case()
    task, key = stream(3), jax.random.key(5)

    def noisy(params: Any, item: Batch, *, key: jax.Array) -> jax.Array:
        return item_loss(params, item) * (1 + jax.random.uniform(key))

    def along(theta: Any) -> jax.Array:
        losses = []
        for i in range(3):
            item = jax.tree.map(lambda x, i=i: x[i], task.support)
            one = lambda p, i=i, item=item: noisy(p, item, key=jax.random.fold_in(key, i))
            value, grads = jax.value_and_grad(one)(theta)
            losses.append(value)
            theta = jax.tree.map(lambda p, g: p - RATE * g, theta, grads)
        return jnp.stack(losses).mean()

    algorithm = online_maml(Loss(noisy, random=True), InnerLoop(SGD, 3))
    found, _ = jax.jit(algorithm.meta_grad)(params, task, key=key)
    assert_close(found, jax.jit(jax.grad(along))(params), 1e-12)


def test_online_maml_logs_the_means_over_the_items():
    """Of auxiliary outputs, each along its own axes."""
    _, params, _ = mlp_case()
    task = stream(3)
    outputs = lambda params, item: (item_loss(params, item), {"inputs": item.inputs})
    _, info = online_maml(Loss(outputs, aux=True), InnerLoop(SGD, 3)).meta_grad(params, task)
    np.testing.assert_allclose(info.aux["inputs"], np.mean(task.support.inputs, 0), rtol=1e-13)


def recurrent(params: Any, item: Batch, *, state: jax.Array) -> tuple[jax.Array, jax.Array, dict]:
    """A state that the item's inputs move and its loss reads."""
    state = jnp.tanh(state + item.inputs.mean(0) @ params["body"]["w"])
    outputs = jnp.tanh(item.inputs @ params["body"]["w"] + state) @ params["head"]["w"]
    value = jnp.mean(jnp.square(outputs - item.targets))
    return value, state, {"square": value**2}


@pytest.mark.parametrize("differentiate", [True, False])
def test_online_maml_carries_state_along_stream(differentiate: bool):
    """The meta-gradient flows through it if asked for; the auxiliary outputs are means along the stream."""
    _, params, _ = mlp_case()
    task = stream(3)
    loss = Loss(recurrent, state=jnp.zeros(4), aux=True, differentiate_state=differentiate)
    algorithm = online_maml(loss, InnerLoop(SGD, 3))

    def along(theta: Any) -> tuple[jax.Array, jax.Array]:
        state, total, squares = jnp.zeros(4), jnp.zeros(()), []
        for i in range(3):
            item = jax.tree.map(lambda x, i=i: x[i], task.support)
            one = lambda p, state=state, item=item: recurrent(p, item, state=state)[:2]
            (value, after), grads = jax.value_and_grad(one, has_aux=True)(theta)
            state = after if differentiate else jax.lax.stop_gradient(after)
            total, squares = total + value / 3, [*squares, value**2]
            theta = jax.tree.map(lambda p, g: p - RATE * g, theta, grads)
        return total, jnp.stack(squares).mean()

    found, info = jax.jit(algorithm.meta_grad)(params, task)
    (value, squares), expected = jax.jit(jax.value_and_grad(along, has_aux=True))(params)
    for part in ("body", "head"):
        assert_close(found[part]["w"], expected[part]["w"], 1e-12)
    np.testing.assert_allclose([info.outer_loss, info.aux["square"]], [value, squares], rtol=1e-12)


@pytest.mark.parametrize(("differentiate", "derivative"), [(True, "unrolled"), (False, "mixed")])
def test_online_maml_with_separate_outer_loss(differentiate: bool, derivative: Any):
    """Of another kind, at the parameters and the state before each step; it has a key of its own for every item."""
    _, params, _ = mlp_case()
    task, key = stream(3), jax.random.key(3)

    def outer(
        params: Any, item: Batch, *, key: jax.Array, state: jax.Array
    ) -> tuple[jax.Array, jax.Array, dict]:
        value = (
            jnp.mean(jnp.abs(mlp(params, item.inputs) + state[:2]) ** 3)
            + jax.random.uniform(key) * params["body"]["b"][0]
        )
        return value, jnp.full(4, jnp.nan), {"twice": 2 * value}

    loss = Loss(recurrent, state=jnp.zeros(4), aux=True, differentiate_state=differentiate)
    other = Loss(outer, random=True, state=jnp.ones(4), aux=True)
    algorithm = online_maml(loss, InnerLoop(SGD, 3, derivative=derivative), outer_loss_fn=other)

    def along(theta: Any) -> tuple[jax.Array, jax.Array]:
        state, total, inner_losses = jnp.zeros(4), jnp.zeros(()), []
        for i in range(3):
            item = jax.tree.map(lambda x, i=i: x[i], task.support)
            own = jax.random.fold_in(jax.random.fold_in(key, i), QUERY)
            total += outer(theta, item, key=own, state=state)[0] / 3
            one = lambda p, state=state, item=item: recurrent(p, item, state=state)[:2]
            (value, after), grads = jax.value_and_grad(one, has_aux=True)(theta)
            state = after if differentiate else jax.lax.stop_gradient(after)
            inner_losses.append(value)
            theta = jax.tree.map(lambda p, g: p - RATE * g, theta, grads)
        return total, jnp.stack(inner_losses)

    found, info = jax.jit(algorithm.meta_grad)(params, task, key=key)
    (value, losses), expected = jax.jit(jax.value_and_grad(along, has_aux=True))(params)
    assert_close(found, expected, 1e-12)
    np.testing.assert_allclose([info.outer_loss, info.aux["twice"]], [value, 2 * value], rtol=1e-12)
    np.testing.assert_allclose(info.inner_losses, losses, rtol=1e-12)
    assert set(algorithm.trajectory(params, task.support, key=key).aux) == {"square"}


def test_online_maml_differentiates_state():
    _, params, _ = mlp_case()
    made = lambda flows: online_maml(
        Loss(recurrent, state=jnp.zeros(4), aux=True, differentiate_state=flows), InnerLoop(SGD, 3)
    )
    grads = [flat(made(flows).meta_grad(params, stream(3))[0]["body"]["w"]) for flows in (True, False)]
    assert differ(*grads) > 1e-2


class Streams:
    """Tasks without a query set."""

    def sample(self, key: jax.Array) -> Task:
        draw = lambda i, *shape: jax.random.normal(jax.random.fold_in(key, i), shape, jnp.float64)
        return Task(Batch(draw(0, 4, 5, 3), draw(1, 4, 5, 2)), None)


def test_outer_loop_trains_on_streams():
    _, params, _ = mlp_case()
    algorithm, key = online_maml(item_loss, InnerLoop(SGD, 4)), jax.random.key(1)
    loop = OuterLoop(algorithm, optax.sgd(1.0), Streams(), meta_batch=2)
    state, _ = loop.run(loop.init(params, key), 1)
    each = [
        jax.jit(algorithm.meta_grad)(params, Streams().sample(k))[0]
        for k in task_keys(key, jnp.asarray(0), 2)
    ]
    expected = jax.tree.map(lambda p, a, b: p - (a + b) / 2, params, *each)
    assert_close(state.params, expected, 1e-12)


def test_online_maml_rejects_zero_steps():
    with pytest.raises(InnerloopError, match="at least one step, got 0"):
        online_maml(item_loss, InnerLoop(SGD, 0))


def test_online_maml_rejects_stream_longer_than_steps():
    """Else a longer text would be cut without a word."""
    _, params, _ = mlp_case()
    algorithm = online_maml(item_loss, InnerLoop(SGD))
    told = r"online_maml: 1 step would leave out the rest of the stream, got 4 items; give InnerLoop\(..., steps=4\)"
    for run in (algorithm.meta_grad, lambda params, task: algorithm.adapt(params, task.support)):
        with pytest.raises(InnerloopError, match=told):
            jax.jit(run)(params, stream(4))


def test_non_scalar_outer_loss_raises():
    """Its mean along the stream would be one."""
    _, params, _ = mlp_case()
    algorithm = online_maml(item_loss, InnerLoop(SGD, 4), outer_loss_fn=lambda params, item: item.targets)
    with pytest.raises(InnerloopError, match="outer_loss_fn: the loss must be one float, got shape"):
        algorithm.meta_grad(params, stream(4))


class Split(OnlineMAML):
    """Takes two halves of the support set as its stream."""

    def trajectory(self, meta_params: Any, support: Any, *rest: Any, **more: Any):
        halves = jax.tree.map(lambda x: x.reshape(2, -1, *x.shape[1:]), support)
        return super().trajectory(meta_params, halves, *rest, **more)


def test_divergence_in_stream_names_inner_step():
    """Also if the algorithm makes the items from the support set itself."""
    _, params, _ = mlp_case()
    task = stream(4)
    wrong = task.support._replace(inputs=task.support.inputs.at[3].set(jnp.nan))
    with pytest.raises(InnerloopError, match="diverged in inner step 3, in its data"):
        online_maml(item_loss, InnerLoop(SGD, 4)).adapt(params, wrong)
    with pytest.raises(InnerloopError, match="diverged in inner step 1"):
        Split(item_loss, InnerLoop(SGD, 2, stream=True)).adapt(params, wrong)


def test_cavia_matches_finite_differences():
    loss, params, task = context_case()
    found = check_meta_gradient(cavia(loss, InnerLoop(SGD, STEPS)), params, task)
    assert found.passed  # the initial context is a constant by definition
    assert not any(path.startswith("context") for path in found.by_parameter)
    assert max(error for path, error in found.by_parameter.items() if path.startswith("shared")) < 1e-6
