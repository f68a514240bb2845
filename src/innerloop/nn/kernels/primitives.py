"""JAX primitives of arrays, made from a function that computes them."""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
from jax.extend.core import Primitive
from jax.interpreters import mlir
from jaxtyping import Array


def primitive(name: str, compute: Callable[..., Array], *static: str) -> Primitive:
    """A primitive of arrays whose value, shape and code are those of `compute(*arrays, **static)`.

    The arrays and the result have the same dtype.
    """
    made = Primitive(name)
    made.def_impl(jax.jit(compute, static_argnames=static))
    plain = lambda aval: jax.ShapeDtypeStruct(aval.shape, aval.dtype)
    result = lambda avals, static: jax.eval_shape(lambda *a: compute(*a, **static), *map(plain, avals))
    made.def_abstract_eval(lambda *avals, **static: avals[0].update(shape=result(avals, static).shape))
    mlir.register_lowering(made, mlir.lower_fun(compute, multiple_results=False))
    return made


def batch_first(arrays: Sequence[Array], axes: Sequence[int | None]) -> list[Array]:
    """The arguments of a batching rule with the batch as the first axis; unbatched ones are broadcast."""
    size = next(a.shape[axis] for a, axis in zip(arrays, axes, strict=True) if axis is not None)
    return [
        jnp.broadcast_to(a, (size, *a.shape)) if axis is None else jnp.moveaxis(a, axis, 0)
        for a, axis in zip(arrays, axes, strict=True)
    ]


def batching_rule(
    made: Primitive, kernel_rank: int | None, separately: Callable[..., Array]
) -> Callable[..., tuple[Array, int]]:
    """The `vmap` rule of a map of examples and a kernel: more examples if all share one kernel.

    Args:
        made: the map.
        kernel_rank: the rank of a kernel that can be shared (None: the second argument of the map is not a kernel).
        separately: `separately(made, first, second, **static)`, the map of pairs without a kernel in common, along the
            first axis of both.
    """

    def rule(
        arrays: tuple[Array, Array], axes: tuple[int | None, int | None], **static: object
    ) -> tuple[Array, int]:
        if axes[0] is None or axes[1] is not None or arrays[1].ndim != kernel_rank:
            return separately(made, *batch_first(arrays, axes), **static), 0
        first = jnp.moveaxis(arrays[0], axes[0], 0)
        out = made.bind(first.reshape(-1, *first.shape[2:]), arrays[1], **static)
        return out.reshape(*first.shape[:2], *out.shape[1:]), 0

    return rule
