"""Calls outside any transformation run as one compiled program, not one for every operation and scan.

    adapted = maml(loss_fn, inner).adapt(params, support)    in a loop, without `jax.jit`

Within `jax.jit`, `jax.vmap` or `jax.grad` a method runs as written.
"""

import inspect
from collections.abc import Callable, Sequence
from functools import wraps
from typing import Any, NoReturn, ParamSpec, TypeVar

import equinox as eqx
import jax
import numpy as np
from jaxtyping import Array, PyTree

from innerloop.engine.diagnosis import Diverged, Place, advice, is_finite
from innerloop.engine.losses.loss_errors import derivative_errors, loss_errors
from innerloop.engine.trainable import check_trainable
from innerloop.parallel.compile_once import compile_once, transforming
from innerloop.parallel.precision import exact_products
from innerloop.parallel.varying import varying_axes, varying_over

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")


def one_program(
    locate_failure: Callable[..., Place | None], check: Callable[[object, str], None] = lambda data, who: None
) -> Callable[[Callable[Arguments, Result]], Callable[Arguments, Result]]:
    """Run a pure method as one compiled program if it is called outside any transformation.

    Such a call raises Diverged if its result is not finite; `locate_failure(owner, *arguments)` says where that
    began. `check(data, who)` raises an InnerloopError unless the second argument is the data that the method takes.
    """

    def decorated(method: Callable[Arguments, Result]) -> Callable[Arguments, Result]:
        bound = _binder(method)

        @wraps(method)
        def called(*arguments: Arguments.args, **keywords: Arguments.kwargs) -> Result:
            if transforming():
                own, more = _of_one_task((arguments[1:], keywords))
                with derivative_errors(), exact_products():
                    return method(arguments[0], *own, **more)  # pyright: ignore[reportCallIssue]
            owner, meta_params, data, *_ = bound(*arguments, **keywords)
            who = f"{type(owner).__name__}.{method.__name__}"
            check_trainable(meta_params, who)
            check(data, who)
            given = arguments[1:]
            # Anything else, including a Python number, is part of the program.
            is_array = lambda x: isinstance(x, jax.Array | np.ndarray | np.generic)
            arrays, rest = eqx.partition((given, keywords), is_array)

            def program(arrays: PyTree) -> tuple[Result, Array]:
                given, keywords = eqx.combine(arrays, rest)
                result = method(owner, *given, **keywords)  # pyright: ignore[reportCallIssue]
                return result, is_finite(result).all()

            with loss_errors(data), derivative_errors():
                result, finite = compile_once(program)(arrays)
            if not finite:
                _raise_diverged(who, locate_failure, arguments)
            return result

        return called

    return decorated


def _of_one_task(given: PyTree) -> PyTree:
    """The same arguments, varying over the axes of a mesh over which any of them does.

    A gradient is then that of this task, as outside `jax.shard_map`, and not the sum over the devices' tasks.
    """
    return varying_over(varying_axes(given), given)


def _binder(method: Callable[..., object]) -> Callable[..., tuple[Any, ...]]:
    """A function that returns the positional arguments of a call of this method, however they are given."""
    signature = inspect.signature(method)
    by_name = [f"`{p.name}`" for p in signature.parameters.values() if p.kind is p.KEYWORD_ONLY]

    def bound(*arguments: object, **keywords: object) -> tuple[Any, ...]:
        try:
            return signature.bind(*arguments, **keywords).args
        except TypeError as error:  # it names neither the method nor its arguments
            hint = f"; give {', '.join(by_name)} by name" if "positional" in str(error) else ""
            raise TypeError(f"{method.__qualname__}(): {error}{hint}") from None

    return bound


def _raise_diverged(
    who: str, locate_failure: Callable[..., Place | None], arguments: Sequence[object]
) -> NoReturn:
    """Raise Diverged, saying where it began if that is known."""
    try:
        place = locate_failure(*arguments)
    except Exception:  # whatever goes wrong here, the divergence itself must be reported
        place = None
    hint = advice(place, "the step size, or scale the inputs", "")
    raise Diverged(who, "diverged" + (f" in {place.text}" if place else ""), hint=hint)
