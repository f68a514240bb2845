"""Products of float32 in full precision, unless the user asks for less.

By default JAX lets accelerators round the factors of a product: to ten bits on a GPU (TensorFloat32), which puts single
meta-gradients off by 5 to 24 % (measured against float64), to seven on a TPU. Networks as small as those of
meta-learning are bound by memory, so that full precision costs about a quarter of the time.

    jax.config.update("jax_default_matmul_precision", "tensorfloat32")      # less, for all of JAX

Within the library what is set there counts; where nothing is, products are exact. A run has its own setting
(`Config.precision`), which its config keeps.
"""

import contextlib
from collections.abc import Callable
from functools import wraps
from typing import ParamSpec, TypeVar

import jax

from innerloop.config.schema import Precision
from innerloop.errors import InnerloopError

PRODUCTS: dict[Precision, str] = {"float32": "highest", "tf32": "tensorfloat32", "bfloat16": "BF16_BF16_F32"}
"""As `jax.default_matmul_precision` takes them; all sum in float32."""

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")


def product_precision() -> str:
    """The precision of products, as `jax.default_matmul_precision` takes it."""
    return jax.config.jax_default_matmul_precision or "highest"  # pyright: ignore[reportAttributeAccessIssue]


def exact_products() -> contextlib.AbstractContextManager[None]:
    """What is traced within has exact products by default. A CPU has no others."""
    if jax.default_backend() == "cpu":
        return contextlib.nullcontext()
    return jax.default_matmul_precision(product_precision())


def available(precision: Precision) -> Precision:
    """The precision that products have here: a CPU multiplies in float32 alone."""
    return "float32" if jax.default_backend() == "cpu" else precision


def check_available(precision: Precision) -> None:
    """Raise InnerloopError unless there are products of this precision here."""
    if available(precision) != precision:
        do = "leave it out"
        raise InnerloopError("precision", "a CPU multiplies in float32 alone", got=precision, do=do)


def products(precision: Precision) -> contextlib.AbstractContextManager[None]:
    """What is traced within has products of this precision, as far as it is available."""
    if jax.default_backend() == "cpu":
        return contextlib.nullcontext()
    return jax.default_matmul_precision(PRODUCTS[precision])


def with_exact_products(function: Callable[Arguments, Result]) -> Callable[Arguments, Result]:
    """The function, with what it traces within `exact_products`."""

    @wraps(function)
    def traced(*arguments: Arguments.args, **keywords: Arguments.kwargs) -> Result:
        with exact_products():
            return function(*arguments, **keywords)

    return traced
