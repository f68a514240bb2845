"""ProtoMAML: a prototypical network before the first step, and a gradient that flows through the prototypes."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from numeric_cases import assert_close, differ, flat, normal

from innerloop.algorithms import maml, protomaml
from innerloop.algorithms.protomaml import prototypes
from innerloop.algorithms.testing.meta_gradient import check_meta_gradient
from innerloop.engine.inner.inner_loop import InnerLoop
from innerloop.engine.types import Batch, Task
from innerloop.nn import MLP
from innerloop.nn.losses import cross_entropy

WAYS, RATE = 3, 0.1


def problem() -> tuple[MLP, Task]:
    """Classes of 3, 2 and 1 examples."""
    draw = normal(0)
    model = MLP(3, WAYS, hidden=(5,), activation="tanh", key=jax.random.key(0))
    model = jax.tree.map(lambda x: draw(*x.shape), model)
    support = Batch(draw(6, 3), jnp.asarray([0, 1, 0, 2, 1, 0]))
    return model, Task(support, Batch(draw(6, 3), jnp.arange(6) % WAYS))


def of_steps(steps: int, **fields: Any):
    return protomaml(cross_entropy(), InnerLoop(optax.sgd(RATE), steps, **fields))


def means(features: jax.Array, targets: jax.Array) -> jax.Array:
    return jnp.stack([features[np.asarray(targets) == k].mean(0) for k in range(WAYS)])


def prototypical(model: MLP, task: Task) -> jax.Array:
    """The loss of Snell et al.: softmax of minus the squared distances to the prototypes."""
    c = means(model.embed(task.support.inputs), task.support.targets)
    x = model.embed(task.query.inputs)
    logits = -jnp.sum(jnp.square(x[:, None] - c[None]), -1)
    return -jnp.mean(jax.nn.log_softmax(logits)[jnp.arange(6), task.query.targets])


def test_protomaml_without_steps_matches_prototypical_network():
    model, task = problem()
    grads, info = jax.jit(of_steps(0).meta_grad)(model, task)
    value, expected = jax.value_and_grad(prototypical)(model, task)
    np.testing.assert_allclose(info.outer_loss, value, rtol=1e-13)
    assert_close(grads.body, expected.body, 1e-12)
    assert not np.any(flat(grads.head))


def test_protomaml_loss_is_invariant_to_embedding_shift():
    """The head that is made for the task moves with the features."""
    model, task = problem()
    shift = 10 * normal(4)(5)
    moved = protomaml(
        cross_entropy(lambda params, x: params.head(params.embed(x) + shift)),
        InnerLoop(optax.sgd(RATE), 0),
        embed=lambda params, x: params.embed(x) + shift,
    )
    losses = [a.query_loss(a.adapt(model, task.support), task.query, key=None) for a in (of_steps(0), moved)]
    np.testing.assert_allclose(losses[0], losses[1], rtol=1e-11)


@pytest.mark.parametrize("steps", [0, 1, 3])
def test_meta_gradient_flows_through_prototypes(steps: int):
    """Finite differences over the whole of it; held constant, the prototypes leave another gradient."""
    model, task = problem()
    found = check_meta_gradient(of_steps(steps), model, task)
    assert found.passed, found
    assert set(found.unused) == {"head/weight", "head/bias"}
    held = maml(cross_entropy(), InnerLoop(optax.sgd(RATE), steps))
    start = jax.lax.stop_gradient(of_steps(steps).start(model, task.support))
    constant = held.meta_grad(eqx.tree_at(lambda m: m.head, model, start.head), task)[0]
    assert differ(constant.body, of_steps(steps).meta_grad(model, task)[0].body) > 1e-2


def test_inner_gradient_holds_prototype_head_constant():
    """A step moves the body by the gradient with the head held, not with the head as a function of the body."""
    model, task = problem()
    c = means(model.embed(task.support.inputs), task.support.targets)
    made = eqx.tree_at(lambda m: (m.head.weight, m.head.bias), model, (2 * c.T, -jnp.sum(c * c, -1)))
    partial = jax.grad(cross_entropy())(made, task.support)
    adapted = of_steps(1).adapt(model, task.support)
    assert_close(adapted, jax.tree.map(lambda p, g: p - RATE * g, made, partial), 1e-12)
    total = jax.grad(lambda m: cross_entropy()(of_steps(0).start(m, task.support), task.support))(model)
    assert differ(partial.body, total.body) > 1e-2


def test_protomaml_adapts_only_selected_head():
    """With a selection the body stands still, and the prototypes still carry the gradient."""
    model, task = problem()
    algorithm = of_steps(2, select="head")
    adapted: Any = algorithm.adapt(model, task.support)
    assert_close(adapted.body, model.body, 1e-15)
    assert differ(adapted.head, algorithm.start(model, task.support).head) > 1e-2
    assert check_meta_gradient(algorithm, model, task).passed


def test_meta_gradient_is_independent_of_initial_head():
    model, task = problem()
    other = eqx.tree_at(lambda m: m.head, model, jax.tree.map(lambda x: x + 1, model.head))
    pair = [jax.jit(of_steps(2).meta_grad)(m, task)[0] for m in (model, other)]
    assert_close(pair[0], pair[1], 1e-14)


def test_prototype_of_empty_class_is_zero():
    features = normal(1)(4, 5)
    found = prototypes(features, jnp.asarray([0, 2, 2, 0]), WAYS)
    expected = jnp.stack([(features[0] + features[3]) / 2, jnp.zeros(5), (features[1] + features[2]) / 2])
    assert_close(found, expected, 1e-15)
    weights = jnp.array([0.5, 0.0, 0.25, 0.125])  # the mask of a batch may hold weights
    found = prototypes(features, jnp.asarray([0, 2, 2, 0]), WAYS, weights)
    first = (0.5 * features[0] + 0.125 * features[3]) / 0.625
    assert_close(found, jnp.stack([first, jnp.zeros(5), features[2]]), 1e-15)
    half = features.astype(jnp.bfloat16)
    assert prototypes(half, jnp.asarray([0, 2, 2, 0]), WAYS, weights).dtype == half.dtype


def test_prototypes_accept_class_targets_of_narrow_dtype():
    """Class 256 does not fit; as an 8-bit number it would be class 0 once more."""
    found = prototypes(normal(1)(2, 5), jnp.asarray([0, 1], jnp.int8), 257)
    assert not found[2:].any()
