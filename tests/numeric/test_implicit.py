"""iMAML: closed forms of quadratic tasks, its two limits, MAML through a converged proximal loop, frozen parameters."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from numeric_cases import assert_close, differ, mlp_case, normal

from innerloop.algorithms import imaml, maml
from innerloop.algorithms.imaml import with_proximal_term
from innerloop.algorithms.testing.meta_gradient import check_meta_gradient
from innerloop.engine.inner.inner_loop import InnerLoop
from innerloop.engine.losses.loss import Loss
from innerloop.engine.pytree import partition
from innerloop.engine.types import Task
from innerloop.errors import InnerloopError

SIZE = 4


def quadratic(seed: int) -> tuple[jax.Array, jax.Array]:
    """A positive definite matrix A, and the minimum c, of L = (w - c)' A (w - c) / 2."""
    half = normal(seed)(SIZE, SIZE)
    return half @ half.T / SIZE + 0.2 * jnp.eye(SIZE), normal(seed + 1)(SIZE)


def loss(w: jax.Array, batch: tuple[jax.Array, jax.Array]) -> jax.Array:
    matrix, centre = batch
    return (w - centre) @ matrix @ (w - centre) / 2


def problem() -> tuple[jax.Array, Task]:
    return normal(9)(SIZE), Task(quadratic(0), quadratic(3))


@pytest.mark.parametrize("proximal", [0.5, 3.0])
def test_imaml_matches_closed_form_on_quadratic(proximal: float):
    """w = (A + l I)^-1 (A c + l theta), and dw/dtheta = l (A + l I)^-1."""
    theta, task = problem()
    (a, c), (b, d) = task
    system = a + proximal * jnp.eye(SIZE)
    algorithm = imaml(loss, InnerLoop(optax.sgd(0.2), 400), proximal=proximal, cg_steps=SIZE + 2)
    w = jnp.linalg.solve(system, a @ c + proximal * theta)
    assert_close(algorithm.adapt(theta, task.support), w, 1e-12)
    found, info = jax.jit(algorithm.meta_grad)(theta, task)
    assert_close(found, proximal * jnp.linalg.solve(system, b @ (w - d)), 1e-12)
    np.testing.assert_allclose(info.outer_loss, loss(w, task.query), rtol=1e-12)
    np.testing.assert_allclose(info.inner_losses[0], loss(theta, task.support), rtol=1e-13)
    np.testing.assert_allclose(info.inner_losses[-1], loss(w, task.support), rtol=1e-12)


def test_imaml_with_strong_proximal_term_gives_plain_gradient():
    """Error of the order of 1 / lambda."""
    theta, task = problem()
    expected = jax.grad(loss)(theta, task.query)
    apart = []
    for proximal in (1e6, 1e8):
        inner = InnerLoop(optax.sgd(1 / proximal), 3)
        apart.append(differ(imaml(loss, inner, proximal=proximal).meta_grad(theta, task)[0], expected))
    assert apart[0] < 1e-4
    np.testing.assert_allclose(apart[0] / apart[1], 100, rtol=1e-3)


def test_imaml_gradient_vanishes_with_weak_proximal_term():
    """The solution is the task's own minimum wherever theta is: the gradient is lambda A^-1 B (c - d), and vanishes."""
    theta, task = problem()
    (a, c), (b, d) = task
    proximal = 1e-7
    inner = InnerLoop(optax.sgd(1 / jnp.linalg.eigvalsh(a)[-1]), 3000)
    found = imaml(loss, inner, proximal=proximal).meta_grad(theta, task)[0]
    assert differ(found / proximal, jnp.linalg.solve(a, b @ (c - d))) < 1e-5


@pytest.mark.parametrize("select", [None, "head"])
def test_imaml_matches_maml_through_converged_proximal_loop(select: str | None):
    """MAML differentiates 150 steps of the same rule. For what is frozen, theta stands in the pull as well."""
    loss, params, task = mlp_case()
    proximal, rule = 30.0, optax.sgd(0.02)
    implicit = imaml(loss, InnerLoop(rule, 150, select=select), proximal=proximal, cg_steps=30)

    def outer(theta: Any) -> jax.Array:
        """MAML's objective; the rule of `imaml` is given theta, so that the derivative flows there too."""
        through = maml(
            loss,
            InnerLoop(with_proximal_term(rule, partition(theta, select)[0], proximal), 150, select=select),
        )
        return through.query_loss(through.adapt(theta, task.support), task.query)

    found, info = jax.jit(implicit.meta_grad)(params, task)
    value, expected = jax.jit(jax.value_and_grad(outer))(params)
    assert_close(found, expected, 1e-10)
    np.testing.assert_allclose(info.outer_loss, value, rtol=1e-12)


def test_frozen_parameter_gradients_match_finite_differences():
    """The body moves the solution of the head: its gradient has a cross term."""
    loss, params, task = mlp_case()
    algorithm = imaml(loss, InnerLoop(optax.sgd(0.1), 300, select="head"), proximal=2.0, cg_steps=20)
    found = check_meta_gradient(algorithm, params, task)
    assert found.passed, found
    direct = jax.grad(loss)(algorithm.adapt(params, task.support), task.query)["body"]
    assert differ(direct, algorithm.meta_grad(params, task)[0]["body"]) > 1e-2


@pytest.mark.parametrize(("rule", "steps"), [(optax.sgd(0.1, momentum=0.9), 400), (optax.lbfgs(), 25)])
def test_imaml_converges_with_momentum_and_lbfgs(rule: optax.GradientTransformation, steps: int):
    """L-BFGS searches along lines of the loss with its proximal term, and is there in a few steps."""
    theta, task = problem()
    (a, c), _ = task
    w = jnp.linalg.solve(a + 2 * jnp.eye(SIZE), a @ c + 2 * theta)
    assert_close(imaml(loss, InnerLoop(rule, steps), proximal=2.0).adapt(theta, task.support), w, 1e-7)


def test_cg_steps_option_changes_meta_gradient():
    """One is not enough for a matrix with four eigenvalues; the option is used."""
    theta, task = problem()
    one, all_ = (
        imaml(loss, InnerLoop(optax.sgd(0.2), 400), cg_steps=n).meta_grad(theta, task)[0] for n in (1, SIZE)
    )
    assert differ(one, all_) > 1e-2


@pytest.mark.parametrize(
    ("steps", "cg_steps", "advice"),
    [(5, 20, "or smaller inner steps, or a larger `proximal`"), (400, 1, "`cg_steps`")],
)
def test_residuals_report_unconverged_solver(steps: int, cg_steps: int, advice: str):
    """Those of a quadratic by hand: with one conjugate gradient, x = v (v'v / v'Mv)."""
    theta, task = problem()
    algorithm = imaml(loss, InnerLoop(optax.sgd(0.2), steps), proximal=0.5, cg_steps=cg_steps)
    inner, system = algorithm.residuals(theta, task)
    start, ((a, c), (b, d)) = jax.tree.map(np.asarray, (theta, task))
    w = start
    for _ in range(steps):
        w = w - 0.2 * (a @ (w - c) + 0.5 * (w - start))
    norm = np.linalg.norm
    np.testing.assert_allclose(
        inner, norm(a @ (w - c) + 0.5 * (w - start)) / norm(a @ (start - c)), rtol=1e-6, atol=1e-14
    )
    v, matrix = b @ (w - d), np.eye(SIZE) + a / 0.5
    residual = norm(matrix @ v * (v @ v) / (v @ matrix @ v) - v) / norm(v)
    np.testing.assert_allclose(system, residual if cg_steps == 1 else 0, rtol=1e-12, atol=1e-12)
    assert f"imaml has not converged (relative residuals: inner loop {inner:.1g}" in (
        verdict := check_meta_gradient(algorithm, theta, task).verdict
    )
    assert verdict.endswith(f"take more {advice}")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"proximal": 0.0}, "above 0, got 0.0"),
        ({"proximal": float("nan")}, "must be a finite number"),
        ({"cg_steps": 0}, "1 or more"),
    ],
)
def test_invalid_options_raise(options: dict, message: str):
    with pytest.raises(InnerloopError, match=message):
        imaml(loss, InnerLoop(optax.sgd(0.1)), **options)


@pytest.mark.parametrize("fields", [{"random": True}, {"state": 0.0}])
def test_random_or_stateful_losses_raise(fields: dict):
    with pytest.raises(InnerloopError, match="function of parameters and batch alone; use maml"):
        imaml(Loss(loss, **fields), InnerLoop(optax.sgd(0.1)))
