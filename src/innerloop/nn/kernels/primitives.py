"""JAX primitives of two arrays, made from a function that computes them."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend.core import Primitive
from jax.interpreters import mlir
from jaxtyping import Array


def primitive(name: str, compute: Callable[..., Array], *static: str) -> Primitive:
    """A primitive of two arrays whose value, shape and code are those of `compute(a, b, **static)`."""
    made = Primitive(name)
    made.def_impl(jax.jit(compute, static_argnames=static))
    made.def_abstract_eval(
        lambda a, b, **static: a.update(
            shape=jax.eval_shape(lambda a, b: compute(a, b, **static), *map(_plain, (a, b))).shape
        )
    )
    mlir.register_lowering(made, mlir.lower_fun(compute, multiple_results=False))
    return made


def _plain(aval: Any) -> jax.ShapeDtypeStruct:
    """The shape and dtype of an abstract value."""
    return jax.ShapeDtypeStruct(aval.shape, aval.dtype)


def batch_first(arrays: tuple[Array, Array], axes: tuple[int | None, int | None]) -> tuple[Array, Array]:
    """The arguments of a batching rule with the batch as their first axis; one without it is repeated."""
    size = next(a.shape[axis] for a, axis in zip(arrays, axes, strict=True) if axis is not None)
    first, second = (
        jnp.broadcast_to(a, (size, *a.shape)) if axis is None else jnp.moveaxis(a, axis, 0)
        for a, axis in zip(arrays, axes, strict=True)
    )
    return first, second
