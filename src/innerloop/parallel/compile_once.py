"""Compiles equal programs once, even if the function is created anew each time.

`jax.jit` caches by the identity of a function. An algorithm, loss or score that is built in a loop is a new function
each time, and so is compiled each time. Here the traced program itself is the cache key. Tracing takes milliseconds
where compiling takes seconds, and it notices a change of a global or attribute that the function reads.
"""

from collections.abc import Callable, Hashable
from functools import lru_cache
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import core
from jax.extend import core as jex
from jaxtyping import PyTree

from innerloop.errors import InnerloopError
from innerloop.parallel.precision import product_precision, with_exact_products

PROGRAMS = 256
"""The number of programs in the cache; the least recently used is dropped first."""

UNREAD = frozenset({"jvp_jaxpr_fun", "jvp_jaxpr_thunk", "fwd_jaxpr_thunk", "bwd", "out_trees", "debug_info"})
"""Equation parameters that do not affect execution: derivative rules, which have already been applied."""


def transforming() -> bool:
    """Whether the caller runs inside a transformation, such as `jax.jit`, `jax.vmap` or `jax.grad`."""
    here = jex.get_opaque_trace_state()
    with core.eval_context():
        return here != jex.get_opaque_trace_state()


def check_not_traced(who: str, hint: str, *given: PyTree) -> None:
    """Raise InnerloopError, on behalf of `who`, if JAX traces what is given, or all that is computed here.

    Beside the variables of jax.vmap or jax.grad, and within jax.ensure_compile_time_eval, all else has values as usual.
    """
    if transforming() and any(isinstance(x, core.Tracer) for x in jax.tree.leaves((jnp.zeros(()), given))):
        wrong = "compiles itself, and cannot run inside jax.jit, jax.vmap or another transformation"
        raise InnerloopError(who, wrong, hint=hint)


class _Same(NamedTuple):
    """An object that is equal only to itself; it is kept alive so that its `id` is not reused."""

    number: int
    held: object

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Same) and self.held is other.held

    def __hash__(self) -> int:
        return self.number


class _Content:
    """A traced function that is equal to every other with the same content."""

    def __init__(self, traced: jex.ClosedJaxpr):
        self.jaxpr, self.content = traced.jaxpr, _content(traced.jaxpr)
        self.hash = hash(self.content)

    def __hash__(self) -> int:
        return self.hash

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Content) and self.content == other.content


def _content(jaxpr: jex.Jaxpr) -> Hashable:
    """Everything in a jaxpr that affects its results, with variables numbered in order of appearance."""
    numbers: dict[jex.Var, int] = {}

    def atom(x: jex.Var | jex.Literal) -> Hashable:
        if isinstance(x, jex.Literal):
            return x.aval, _value(x.val)
        return numbers.setdefault(x, len(numbers)), x.aval

    atoms = lambda variables: tuple(map(atom, variables))
    inputs = atoms(jaxpr.constvars), atoms(jaxpr.invars)
    settings = lambda params: tuple(
        (name, _value(params[name])) for name in sorted(params) if name not in UNREAD
    )
    equations = tuple(
        (eqn.primitive, atoms(eqn.invars), settings(eqn.params), atoms(eqn.outvars)) for eqn in jaxpr.eqns
    )
    return inputs, equations, atoms(jaxpr.outvars)


def _value(x: object) -> Hashable:
    """A key that compares any value by content or, if that is not possible, by identity."""
    if isinstance(x, jex.ClosedJaxpr):
        return _content(x.jaxpr), tuple(map(_value, x.consts))
    if isinstance(x, jex.Jaxpr):
        return _content(x)
    if isinstance(x, list | tuple):
        return type(x), tuple(map(_value, x))
    if isinstance(x, np.ndarray | np.generic):
        return type(x), x.dtype, x.shape, x.tobytes()
    if isinstance(x, bool | int | float | complex):
        return type(x), repr(x)  # 1 is not 1.0 or True, and 0.0 not -0.0
    try:
        hash(x)
    except TypeError:
        return _Same(id(x), x)
    return x


@lru_cache(maxsize=PROGRAMS)
def _compiled(content: _Content, options: tuple[tuple[str, object], ...]) -> Callable[..., list]:
    """The compiled program `(constants, arguments) -> results`, both flat."""
    run = lambda constants, arguments: jex.jaxpr_as_fun(jex.ClosedJaxpr(content.jaxpr, constants))(*arguments)
    return jax.jit(run, compiler_options=dict(options) or None)


def compile_once(
    function: Callable[..., PyTree], options: dict[str, bool] | None = None
) -> Callable[..., PyTree]:
    """`jax.jit(function)` for functions that are created anew: equal programs are compiled once.

    Like that of `jax.jit`, the result traces at the first call with arguments of given shapes. It must not be
    differentiated or called inside a transformation.
    """
    known: dict[Hashable, tuple[Callable[..., list], list, object]] = {}

    def call(*arguments: PyTree) -> PyTree:
        if jax.config.jax_disable_jit:  # pyright: ignore[reportAttributeAccessIssue]
            return function(*arguments)
        leaves, structure = jax.tree.flatten(arguments)
        settings = jnp.result_type(float), product_precision()
        shapes = structure, tuple(map(jax.typeof, leaves)), settings
        if shapes not in known:
            traced, result = jax.make_jaxpr(with_exact_products(function), return_shape=True)(*arguments)
            program = _compiled(_Content(traced), tuple(sorted((options or {}).items())))
            known[shapes] = program, traced.consts, jax.tree.structure(result)
        program, constants, result = known[shapes]
        return jax.tree.unflatten(result, program(constants, leaves))

    return call
