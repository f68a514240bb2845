"""Max-pooling against its definition and against JAX's own derivatives of a maximum, of every order."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numeric_cases import normal

from innerloop.nn.kernels.max_pool import max_pool

TASKS = 3


def by_maximum(x: jax.Array) -> jax.Array:
    """The definition, in JAX's own operations."""
    examples, height, width, channels = x.shape
    x = x[:, : height // 2 * 2, : width // 2 * 2]
    return x.reshape(examples, height // 2, 2, width // 2, 2, channels).max((2, 4))


def derivatives(pool: Any, x: jax.Array) -> Any:
    """Value, gradient, the gradient of its length, and the derivative of the gradient along itself."""
    gradient = jax.grad(lambda x: jnp.sum(jnp.tanh(pool(pool(x) ** 3)) ** 2))
    length = lambda x: jnp.sum(gradient(x) ** 2)
    return pool(x), gradient(x), jax.grad(length)(x), jax.jvp(gradient, (x,), (gradient(x),))[1]


def same(found: Any, expected: Any) -> None:
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-12), found, expected)


@pytest.mark.parametrize(("height", "width"), [(4, 4), (5, 6), (7, 5)])
@pytest.mark.parametrize("axis", [None, 0, 2])
def test_max_pool_derivatives_match_reference(height: int, width: int, axis: int | None):
    shape = [2, height, width, 3]
    x = normal(0)(*(shape if axis is None else [*shape[:axis], TASKS, *shape[axis:]]))
    batched = lambda f: f if axis is None else jax.vmap(f, axis)
    found = batched(lambda x: derivatives(max_pool, x))
    compiled = found if axis is None else jax.jit(found)
    same(compiled(x), batched(lambda x: derivatives(by_maximum, x))(x))


def test_max_pool_vmap_over_images_or_directions_only():
    """Where only the images or only the directions are batched."""
    draw = normal(1)
    x, xs, direction, directions = (
        draw(2, 4, 4, 3),
        draw(TASKS, 2, 4, 4, 3),
        draw(2, 4, 4, 3),
        draw(TASKS, 2, 4, 4, 3),
    )
    along = lambda pool: lambda x, v: jax.jvp(pool, (x,), (v,))[1]
    back = lambda pool: lambda x, y: jax.vjp(pool, x)[1](y)[0]
    for derived, v, vs in (
        (along, direction, directions),
        (back, direction[:, :2, :2], directions[:, :, :2, :2]),
    ):
        for axes, pair in (((None, 0), (x, vs)), ((0, None), (xs, v))):
            same(jax.vmap(derived(max_pool), axes)(*pair), jax.vmap(derived(by_maximum), axes)(*pair))


def test_max_pool_gradient_of_ties_goes_to_first_maximum():
    x = jnp.ones((1, 2, 4, 1)).at[0, 1, 3].set(2.0)
    gradient = jax.grad(lambda x: max_pool(x).sum())(x)
    np.testing.assert_array_equal(gradient[0, :, :, 0], [[1, 0, 0, 0], [0, 0, 0, 1]])


def test_max_pool_residual_is_one_byte_per_window():
    _, back = jax.vjp(max_pool, jnp.ones((2, 8, 8, 3)))
    kept = [leaf for leaf in jax.tree.leaves(back) if hasattr(leaf, "nbytes")]
    assert sum(leaf.nbytes for leaf in kept) == 2 * 4 * 4 * 3


@pytest.mark.parametrize("place", [(0, 0), (0, 1), (1, 0), (1, 1)])
def test_max_pool_propagates_nan(place: tuple[int, int]):
    x = jnp.arange(4.0).reshape(1, 2, 2, 1).at[0, *place, 0].set(jnp.nan)
    assert jnp.isnan(max_pool(x)).all()


@pytest.mark.parametrize("shape", [(2, 1, 4, 3), (2, 4, 1, 3), (2, 4, 4, 0), (0, 4, 4, 3)])
def test_max_pool_of_empty_arrays(shape: tuple[int, ...]):
    x = jnp.ones((TASKS, *shape))
    assert jax.vmap(max_pool)(x).shape == jax.vmap(by_maximum)(x).shape
    assert jax.vmap(jax.grad(lambda x: max_pool(x).sum()))(x).shape == x.shape
