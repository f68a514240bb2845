"""The linear layer's three products against `x @ w`, whatever is derived and whatever is batched."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numeric_cases import normal

from innerloop.nn.kernels.linear import linear

TASKS = 3


def same(found: Any, expected: Any) -> None:
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-12), found, expected)


def derivatives(product: Any, x: jax.Array, w: jax.Array) -> Any:
    """Value, gradient, and the derivative of the gradient along itself: reverse, and forward over reverse."""
    loss = lambda x, w: jnp.sum(jnp.tanh(product(jnp.tanh(product(x, w)), w.T)))
    gradient = jax.grad(loss, (0, 1))
    length = lambda x, w: sum(jnp.sum(g**2) for g in gradient(x, w))
    along = jax.jvp(gradient, (x, w), gradient(x, w))[1]
    return product(x, w), gradient(x, w), jax.grad(length, (0, 1))(x, w), along


@pytest.mark.parametrize("axes", [(None, None), (0, 0), (0, None), (None, 0), (1, 2)])
@pytest.mark.parametrize(("examples", "inputs", "outputs"), [(5, 4, 3), (2, 1, 4), (4, 3, 1)])
def test_linear_derivatives_match_matmul(axes: tuple, examples: int, inputs: int, outputs: int):
    draw = normal(0)
    sizes = ((examples, inputs), (inputs, outputs))
    arrays = [
        draw(*size) if axis is None else draw(*size[:axis], TASKS, *size[axis:])
        for size, axis in zip(sizes, axes, strict=True)
    ]
    batched = lambda f: f if axes == (None, None) else jax.jit(jax.vmap(f, axes))
    of = lambda product: batched(lambda x, w: derivatives(product, x, w))
    same(of(linear)(*arrays), jax.jit(of(jnp.matmul))(*arrays))


def test_linear_under_nested_vmap_matches_matmul():
    """The same weights for the inner axis, others for the outer one."""
    draw = normal(1)
    x, w = draw(2, TASKS, 5, 4), draw(2, 4, 3)
    twice = lambda product: jax.jit(jax.vmap(jax.vmap(lambda x, w: derivatives(product, x, w), (0, None))))
    same(twice(linear)(x, w), twice(jnp.matmul)(x, w))


def test_linear_promotes_integer_inputs():
    x, w = jnp.arange(6).reshape(2, 3), normal(2)(3, 2)
    same(linear(x, w), x @ w)
