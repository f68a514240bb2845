"""Calls outside of any transformation: one compiled program each, and not one for every operation and scan.

    adapted = maml(loss_fn, inner).adapt(params, support)    in a loop, without `jax.jit`

Within `jax.jit`, `jax.vmap` or `jax.grad` a method is what it was written as.
"""

from collections.abc import Callable
from functools import wraps
from typing import ParamSpec, TypeVar

import equinox as eqx
import jax
import numpy as np
from jaxtyping import PyTree

from innerloop.parallel.compile_once import compile_once, transforming

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")


def _is_array(x: object) -> bool:
    """Whether a leaf is an argument of the program; any other, a number of Python's too, is a part of it."""
    return isinstance(x, jax.Array | np.ndarray | np.generic)


def one_program(method: Callable[Arguments, Result]) -> Callable[Arguments, Result]:
    """Run a pure method as one compiled program where it is called outside of any transformation."""

    @wraps(method)
    def called(*arguments: Arguments.args, **keywords: Arguments.kwargs) -> Result:
        if transforming():
            return method(*arguments, **keywords)
        owner, *given = arguments
        arrays, rest = eqx.partition((given, keywords), _is_array)

        def program(arrays: PyTree) -> Result:
            given, keywords = eqx.combine(arrays, rest)
            return method(owner, *given, **keywords)  # pyright: ignore[reportCallIssue]

        return compile_once(program)(arrays)

    return called
