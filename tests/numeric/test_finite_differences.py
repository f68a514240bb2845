"""The meta-gradient against central differences of the outer objective: (f(x + h v) - f(x - h v)) / 2h.

The truncation error is h^2 f'''/6 and the rounding error about 1e-16 / h; at h = 1e-6 both are below 1e-9.
"""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from numeric_cases import CASES, RULES, flat, normal

from innerloop.algorithms import anil, boil, fomaml, maml
from innerloop.engine.inner.inner_loop import InnerLoop

STEPS = 2


def errors(make, case: str, rule: optax.GradientTransformation, h: float) -> np.ndarray:
    """Relative errors of the meta-gradient along three random directions."""
    loss, params, task = CASES[case]()
    algorithm = make(loss, InnerLoop(rule, STEPS))
    grads = flat(jax.jit(algorithm.meta_grad)(params, task)[0])
    leaves, structure = jax.tree.flatten(params)

    @jax.jit
    def objective(*leaves: jax.Array) -> jax.Array:
        return loss(algorithm.adapt(structure.unflatten(leaves), task.support), task.query)

    found = []
    draw = normal(9)
    for _ in range(3):
        v = [np.asarray(draw(*x.shape)) for x in leaves]
        ahead = objective(*[jnp.asarray(x + h * d) for x, d in zip(leaves, v, strict=True)])
        behind = objective(*[jnp.asarray(x - h * d) for x, d in zip(leaves, v, strict=True)])
        along = float(flat(v) @ grads)
        found.append(abs(float(ahead - behind) / (2 * h) - along) / abs(along))
    return np.array(found)


@pytest.mark.parametrize(
    ("make", "rule"),
    [(maml, "sgd"), (maml, "momentum"), (maml, "adam"), (anil, "sgd"), (anil, "adam"), (boil, "momentum")],
)
def test_mlp_meta_gradient_matches_finite_differences(make, rule: str):
    assert errors(make, "mlp", RULES[rule](), 1e-6).max() < 1e-7


@pytest.mark.parametrize("make", [maml, anil])
def test_conv_meta_gradient_matches_finite_differences(make):
    assert errors(make, "smooth conv", optax.sgd(0.1), 1e-6).max() < 1e-7


def test_conv4_meta_gradient_matches_finite_differences():
    """ReLU has kinks: a smaller step meets fewer of them, and its rounding is 1e-16 / 1e-8 of the loss."""
    assert np.median(errors(maml, "conv4", optax.sgd(0.1), 1e-8)) < 1e-5


def test_first_order_gradient_fails_finite_differences():
    """What the second derivatives are worth: the same comparison fails without them."""
    assert errors(fomaml, "mlp", optax.sgd(0.1), 1e-6).min() > 1e-2
