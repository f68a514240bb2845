r"""Quadratic tasks, where everything is known.

Support loss 1/2 (theta - c)^T A (theta - c), query loss 1/2 |theta - q|^2. A gradient step is affine:

    theta_{i+1} - c = (I - alpha A)(theta_i - c)      so   theta_k - c = (I - alpha A)^k (theta - c)

and by the chain rule MAML's gradient is ((I - alpha A)^k)^T (theta_k - q), FOMAML's is theta_k - q, and Reptile's
displacement theta - theta_k is (I - (I - alpha A)^k)(theta - c).
"""

from typing import NamedTuple, get_args

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numeric_cases import assert_close, gradient, normal, sgd

from innerloop.algorithms import fomaml, joint, maml, reptile
from innerloop.engine.inner.inner_loop import Derivative
from innerloop.engine.types import Task

ALPHA = 0.2


class Quadratic(NamedTuple):
    matrix: jax.Array
    centre: jax.Array


def support_loss(params: dict, batch: Quadratic) -> jax.Array:
    d = params["theta"] - batch.centre
    return 0.5 * d @ batch.matrix @ d


def query_loss(params: dict, q: jax.Array) -> jax.Array:
    return 0.5 * jnp.sum(jnp.square(params["theta"] - q))


def problem() -> tuple[dict, Task]:
    draw = normal(0)
    root = draw(4, 4)
    return {"theta": draw(4)}, Task(Quadratic(root @ root.T / 2, draw(4)), draw(4))


def closed_form(steps: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """((I - alpha A)^k, theta_k, theta - c, q)."""
    params, task = problem()
    matrix, centre = (np.asarray(x) for x in task.support)
    power = np.linalg.matrix_power(np.eye(4) - ALPHA * matrix, steps)
    from_centre = np.asarray(params["theta"]) - centre
    return power, centre + power @ from_centre, from_centre, np.asarray(task.query)


@pytest.mark.parametrize("derivative", get_args(Derivative))
@pytest.mark.parametrize("steps", [0, 1, 2, 5])
def test_maml_matches_closed_form(steps: int, derivative: Derivative):
    params, task = problem()
    power, adapted, _, q = closed_form(steps)
    algorithm = maml(support_loss, sgd(steps, ALPHA, derivative), outer_loss_fn=query_loss)
    assert_close(gradient(algorithm, params, task), {"theta": power.T @ (adapted - q)}, 1e-13)


@pytest.mark.parametrize("steps", [0, 1, 2, 5])
def test_fomaml_matches_closed_form(steps: int):
    params, task = problem()
    _, adapted, _, q = closed_form(steps)
    algorithm = fomaml(support_loss, sgd(steps, ALPHA), outer_loss_fn=query_loss)
    assert_close(gradient(algorithm, params, task), {"theta": adapted - q}, 1e-13)
    assert_close(algorithm.adapt(params, task.support), {"theta": adapted}, 1e-13)


@pytest.mark.parametrize("alpha", [None, ALPHA])
@pytest.mark.parametrize("steps", [1, 2, 5])
def test_reptile_matches_closed_form(steps: int, alpha: float | None):
    params, task = problem()
    power, _, from_centre, _ = closed_form(steps)
    expected = (np.eye(4) - power) @ from_centre / (1 if alpha is None else alpha)
    grads = gradient(reptile(support_loss, sgd(steps, ALPHA), alpha=alpha), params, task)
    assert_close(grads, {"theta": expected}, 1e-13)


def test_one_step_reptile_is_support_gradient():
    """theta - (theta - alpha grad L) = alpha grad L; divided by alpha, grad L itself."""
    params, task = problem()
    plain = jax.grad(support_loss)(params, task.support)
    displacement = gradient(reptile(support_loss, sgd(1, ALPHA)), params, task)
    assert_close(displacement, jax.tree.map(lambda g: ALPHA * g, plain), 1e-13)
    assert_close(gradient(reptile(support_loss, sgd(1, ALPHA), alpha=ALPHA), params, task), plain, 1e-13)


def test_recorded_losses_match_closed_form():
    """The outer loss is the query loss at theta_k; the inner losses are those before each step."""
    params, task = problem()
    matrix, _ = (np.asarray(x) for x in task.support)
    _, info = maml(support_loss, sgd(3, ALPHA), outer_loss_fn=query_loss).meta_grad(params, task)
    for i in range(3):
        power, _, from_centre, _ = closed_form(i)
        d = power @ from_centre
        np.testing.assert_allclose(info.inner_losses[i], 0.5 * d @ matrix @ d, rtol=1e-13)
    _, adapted, _, q = closed_form(3)
    np.testing.assert_allclose(info.outer_loss, 0.5 * np.sum((adapted - q) ** 2), rtol=1e-13)
    _, without = reptile(support_loss, sgd(3, ALPHA)).meta_grad(params, task)
    assert_close(without.inner_losses, info.inner_losses, 1e-13)
    assert without.outer_loss == without.inner_losses[2]


def test_joint_is_the_plain_query_gradient():
    params, task = problem()
    same = Task(task.support, task.support._replace(centre=task.query))
    expected = jax.grad(support_loss)(params, same.query)
    algorithm = joint(support_loss, sgd(3))
    assert_close(gradient(algorithm, params, same), expected, 1e-13)
    assert algorithm.meta_grad(params, same)[1].inner_losses.shape == (0,)  # it takes no steps
