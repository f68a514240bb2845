"""The derivative through the inner loop: limits where algorithms coincide, and the product of Hessians."""

import inspect
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree
from numeric_cases import assert_close, differ, gradient, mlp_case, sgd

from innerloop import algorithms
from innerloop.algorithms import anil, boil, fomaml, joint, maml
from innerloop.engine.losses.loss import Loss
from innerloop.engine.types import Batch, LossFn, Task


def test_zero_steps_reduce_maml_and_fomaml_to_plain_gradient():
    """theta_0 = theta, and an empty product is I."""
    loss, params, task = mlp_case()
    plain = jax.grad(loss)(params, task.query)
    for algorithm in (maml(loss, sgd(0)), fomaml(loss, sgd(0)), joint(loss, sgd(0))):
        assert_close(gradient(algorithm, params, task), plain, 1e-14)


def test_maml_equals_fomaml_for_linear_inner_loss():
    """Its Hessian is zero, so every I - alpha H_i is I; the query loss is still curved."""
    loss, params, task = mlp_case()

    def linear(params: dict, batch: Batch) -> jax.Array:
        weights = jnp.sin(jnp.arange(params["body"]["w"].size).reshape(3, 4)) * batch.inputs.mean()
        return jnp.sum(params["body"]["w"] * weights) + jnp.sum(params["head"]["b"])

    second = gradient(maml(linear, sgd(3), outer_loss_fn=loss), params, task)
    first = gradient(fomaml(linear, sgd(3), outer_loss_fn=loss), params, task)
    assert_close(second, first, 1e-13)


def test_maml_differs_from_fomaml_for_curved_inner_loss():
    loss, params, task = mlp_case()
    assert (
        differ(gradient(fomaml(loss, sgd(3)), params, task), gradient(maml(loss, sgd(3)), params, task)) > 0.1
    )


@pytest.mark.parametrize("steps", [1, 2, 3, 4])
def test_maml_gradient_matches_product_of_hessians(steps: int):
    """prod_i (I - alpha H_i), first step on the left, times grad L(theta_k; query); the H_i do not commute."""
    alpha = 0.1
    loss, params, task = mlp_case()
    theta, unravel = ravel_pytree(params)
    on_vector = lambda theta, batch: loss(unravel(theta), batch)
    slope = jax.jit(jax.grad(on_vector))
    hessian = jax.jit(jax.hessian(on_vector))
    product = np.eye(theta.size)
    for _ in range(steps):
        product = product @ (np.eye(theta.size) - alpha * np.asarray(hessian(theta, task.support)))
        theta = theta - alpha * slope(theta, task.support)
    expected = unravel(jnp.asarray(product @ np.asarray(slope(theta, task.query))))
    assert_close(gradient(maml(loss, sgd(steps, alpha)), params, task), expected, 1e-12)


def test_anil_reduces_to_maml_and_joint_training():
    """Head = everything: the inner loop moves all, as MAML's. Head = nothing: it moves nothing."""
    loss, params, task = mlp_case()
    everything = gradient(anil(loss, sgd(3), head=("body", "head")), params, task)
    assert_close(everything, gradient(maml(loss, sgd(3)), params, task), 1e-13)
    nothing = gradient(anil(loss, sgd(3), head=()), params, task)
    assert_close(nothing, gradient(joint(loss, sgd(3)), params, task), 1e-13)


def test_boil_reduces_to_maml_and_joint_training():
    """ANIL's complement."""
    loss, params, task = mlp_case()
    everything = gradient(boil(loss, sgd(3), head=()), params, task)
    assert_close(everything, gradient(maml(loss, sgd(3)), params, task), 1e-13)
    nothing = gradient(boil(loss, sgd(3), head=("body", "head")), params, task)
    assert_close(nothing, gradient(joint(loss, sgd(3)), params, task), 1e-13)
    as_anil = gradient(anil(loss, sgd(3), head="body"), params, task)
    assert_close(gradient(boil(loss, sgd(3)), params, task), as_anil, 1e-13)


@pytest.mark.parametrize(("make", "still"), [(anil, "body"), (boil, "head")])
def test_frozen_parameters_are_unchanged_and_have_meta_gradients(make, still: str):
    """It stays bit for bit, while the rest moves; its meta-gradient is not zero."""
    loss, params, task = mlp_case()
    adapted = make(loss, sgd(3)).adapt(params, task.support)
    moving = "head" if still == "body" else "body"
    for name in ("w", "b"):
        np.testing.assert_array_equal(adapted[still][name], params[still][name])
        assert np.abs(adapted[moving][name] - params[moving][name]).min() > 0
    grads = gradient(make(loss, sgd(3)), params, task)
    assert all(np.abs(g).max() > 1e-6 for g in jax.tree.leaves(grads))


def test_adapt_ignores_query_set():
    """A query of NaN and of another size leaves the adapted parameters bit for bit."""
    loss, params, task = mlp_case()
    other = Task(task.support, jax.tree.map(lambda x: jnp.full((2, *x.shape[1:]), jnp.nan), task.query))
    for make in (maml, fomaml, anil, boil):
        algorithm = make(loss, sgd(2))
        adapted = jax.jit(lambda task, a=algorithm: a.adapt(params, task.support))
        jax.tree.map(np.testing.assert_array_equal, adapted(task), adapted(other))


def test_meta_gradient_depends_on_support_set():
    """Perturbing the support set moves MAML's gradient: the query alone does not decide it."""
    loss, params, task = mlp_case()
    moved = task._replace(support=task.support._replace(targets=task.support.targets + 0.1))
    algorithm = maml(loss, sgd(2))
    assert differ(gradient(algorithm, params, moved), gradient(algorithm, params, task)) > 1e-3


def embedded(params: Any, x: jax.Array) -> jax.Array:
    """Features for ProtoMAML, which takes tasks of classes and sets the head itself."""
    return jnp.tanh(x @ params["body"]["w"])


def with_head(params: Any, w: jax.Array, b: jax.Array) -> Any:
    return params | {"head": {"w": w, "b": b}}


def as_classes(task: Task) -> Task:
    """The same inputs with two classes in turn."""
    return Task(*(Batch(batch.inputs, jnp.arange(len(batch.inputs)) % 2) for batch in task))


def of_classes(loss: LossFn) -> LossFn:
    """The loss of class numbers."""
    return lambda params, batch: loss(params, Batch(batch.inputs, jax.nn.one_hot(batch.targets, 2)))


TAKES_OUTER_LOSS = [
    name
    for name in algorithms.__all__
    if "outer_loss_fn" in inspect.signature(getattr(algorithms, name)).parameters
]


@pytest.mark.parametrize("name", TAKES_OUTER_LOSS)
def test_outer_loss_fn_is_used_on_query_set(name: str):
    """Three times the loss and one more: the inner loop is the same, the gradient three times as large."""
    loss, params, task = mlp_case()
    options = {"cavia": {"context": "head"}}.get(name, {})
    if name == "protomaml":
        options, task = {"ways": 2, "embed": embedded, "with_head": with_head}, as_classes(task)
        loss = of_classes(loss)
    other = lambda params, batch: 3 * loss(params, batch) + 1
    steps = len(task.support.inputs) if name == "online_maml" else 2  # one for each item
    make = partial(getattr(algorithms, name), loss, sgd(steps), **options)
    meta = make().init(params)
    (grads, info), (thrice, more) = (a.meta_grad(meta, task) for a in (make(), make(outer_loss_fn=other)))
    np.testing.assert_allclose(more.outer_loss, 3 * info.outer_loss + 1, rtol=1e-12)
    np.testing.assert_allclose(more.inner_losses, info.inner_losses, rtol=1e-12)
    digits = 1e-3 if name == "imaml" else 1e-9  # some steps of conjugate gradients
    assert_close(thrice, jax.tree.map(lambda g: 3 * g, grads), digits)


@pytest.mark.parametrize(
    "name", [name for name in algorithms.__all__ if name not in ("imaml", "online_maml")]
)
def test_inner_steps_and_query_receive_folded_keys(name: str):
    """A number is added to the loss that depends on the key alone: it is in the losses, and in no gradient."""
    loss, params, task = mlp_case()
    options = {"cavia": {"context": "head"}}.get(name, {})
    if name == "protomaml":
        options, task = {"ways": 2, "embed": embedded, "with_head": with_head}, as_classes(task)
        loss = of_classes(loss)
    noisy = Loss(lambda params, batch, key: loss(params, batch) + jax.random.normal(key), random=True)
    key, make = jax.random.key(5), partial(getattr(algorithms, name), inner=sgd(2), **options)
    meta = make(loss).init(params)
    (grads, info), (same, more) = make(loss).meta_grad(meta, task), make(noisy).meta_grad(meta, task, key=key)
    assert_close(same, grads, 1e-12)
    steps = [float(jax.random.normal(jax.random.fold_in(key, i))) for i in range(len(info.inner_losses))]
    np.testing.assert_allclose(more.inner_losses - info.inner_losses, steps, rtol=1e-9)
    on_query = float(jax.random.normal(jax.random.fold_in(key, 2**31 - 1)))
    expected = steps[-1] if name == "reptile" else on_query
    np.testing.assert_allclose(more.outer_loss - info.outer_loss, expected, rtol=1e-9)
