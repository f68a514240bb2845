"""Matrix products and convolutions in full float32 precision, unless the user asks for less.

By default, JAX lets accelerators round the factors of a product: to ten bits on a GPU (TensorFloat32), which puts
single meta-gradients off by 5 to 24 % (measured against float64), and to seven bits on a TPU. The small networks of
meta-learning are memory-bound, so that full precision costs about a quarter of the time.

    jax.config.update("jax_default_matmul_precision", "tensorfloat32")      # less, for all of JAX

The library respects this setting; without it, products are exact. A run has its own setting, `Config.precision`.
"""

import contextlib
from collections.abc import Callable
from functools import wraps
from typing import ParamSpec, TypeVar

import jax
import jax.numpy as jnp
from jaxtyping import Array

from innerloop.config.schema import Precision
from innerloop.errors import InnerloopError

PRODUCTS: dict[Precision, str] = {"float32": "highest", "tf32": "tensorfloat32", "bfloat16": "BF16_BF16_F32"}
"""Values for `jax.default_matmul_precision`; all of them sum in float32."""

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")


def product_precision() -> str:
    """The precision of products, as a value for `jax.default_matmul_precision`."""
    return jax.config.jax_default_matmul_precision or "highest"  # pyright: ignore[reportAttributeAccessIssue]


def exact_products() -> contextlib.AbstractContextManager[None]:
    """Code traced within has exact products by default; on a CPU they always are."""
    if jax.default_backend() == "cpu":
        return contextlib.nullcontext()
    return jax.default_matmul_precision(product_precision())


def available(precision: Precision) -> Precision:
    """The precision that products have here: a CPU only multiplies in float32."""
    return "float32" if jax.default_backend() == "cpu" else precision


def check_available(precision: Precision) -> None:
    """Raise InnerloopError if this precision is not available here."""
    if available(precision) != precision:
        hint = "leave it out"
        raise InnerloopError("precision", "a CPU only multiplies in float32", got=precision, hint=hint)


def products(precision: Precision) -> contextlib.AbstractContextManager[None]:
    """Code traced within has products of this precision, if available."""
    if jax.default_backend() == "cpu":
        return contextlib.nullcontext()
    return jax.default_matmul_precision(PRODUCTS[precision])


def at_least_float32(x: Array) -> Array:
    """Half precision as float32, in which long sums are taken; everything else as it is."""
    return x.astype(jnp.promote_types(x.dtype, jnp.float32)) if jnp.issubdtype(x.dtype, jnp.inexact) else x


def with_exact_products(function: Callable[Arguments, Result]) -> Callable[Arguments, Result]:
    """The function, traced within `exact_products`."""

    @wraps(function)
    def traced(*arguments: Arguments.args, **keywords: Arguments.kwargs) -> Result:
        with exact_products():
            return function(*arguments, **keywords)

    return traced
