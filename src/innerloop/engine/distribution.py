"""User-defined task distributions: checked in the traced program, and split into arrays and the rest."""

import copy
from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.extend import core as jex
from jaxtyping import PRNGKeyArray, PyTree

from innerloop.engine.jaxprs import constants_of, dependent
from innerloop.engine.keys import check_key
from innerloop.engine.pytree import is_numeric
from innerloop.engine.types import TaskDistribution
from innerloop.errors import InnerloopError, explained

UNTRACEABLE = (jax.errors.JAXTypeError, jax.errors.JAXIndexError)


def check_distribution(tasks: TaskDistribution, key: PRNGKeyArray, who: str, argument: str = "tasks") -> None:
    """Raise InnerloopError, on behalf of `who`, unless this is a distribution whose tasks are drawn from their keys.

    Raises:
        InnerloopError: if there is no method `sample`, it does not return a `Task`, it cannot be traced, its
            tasks do not depend on the key, or they depend on another source of randomness.
    """
    check_samples(tasks, who, argument)
    check_random(tasks.sample, key, who, f"{type(tasks).__name__}.sample", _check_task)


def check_samples(tasks: object, who: str, argument: str = "tasks") -> None:
    """Raise InnerloopError, on behalf of `who`, unless this is an object with a method `sample`."""
    if isinstance(tasks, type) or not callable(getattr(tasks, "sample", None)):
        got = f"the class {tasks.__name__}" if isinstance(tasks, type) else type(tasks).__name__
        hint = "pass an object with a method `sample(key)` that returns a Task"
        if hasattr(tasks, "sample_task"):  # an environment
            hint = "train policies with innerloop.fit_policy, and evaluate them with rl.evaluate_policy"
        raise InnerloopError(who, f"`{argument}` must be a distribution of tasks", got=got, hint=hint)


def _check_task(task: object, who: str, name: str) -> None:
    """Raise InnerloopError unless a task is a pytree of arrays with a support and a query set."""
    if not (hasattr(task, "support") and hasattr(task, "query")) or jax.tree_util.all_leaves([task]):
        hint = "return innerloop.Task(support, query)"
        raise InnerloopError(who, f"`{name}` must return a Task", got=type(task).__name__, hint=hint)
    for leaf in jax.tree.leaves(task):
        if not isinstance(leaf, bool | int | float | complex) and not is_data(leaf):
            got, hint = type(leaf).__name__, "keep names and other metadata in the distribution"
            raise InnerloopError(who, f"`{name}` must return a Task of arrays", got=got, hint=hint)


def check_random(
    draw: Callable[[PRNGKeyArray], PyTree],
    key: PRNGKeyArray,
    who: str,
    name: str,
    check: Callable[[object, str, str], None] = lambda drawn, who, name: None,
    *,
    fixed: str = "use innerloop.TaskList for fixed tasks",
) -> None:
    """Raise InnerloopError, on behalf of `who`, unless `draw` takes its randomness from its key and nothing else.

    `check(drawn, who, name)` validates what was drawn, a pytree of arrays; `fixed` says what to do with fixed tasks.
    """
    check_key(key, who)

    def traced(key: PRNGKeyArray) -> PyTree:
        drawn = draw(key)
        check(drawn, who, name)
        return drawn

    hint = "hold arrays as attributes, index them with integers from jax.random, and choose with jnp.where"
    with (
        explained(who, f"`{name}` cannot be called", hint="it must take one key and be traceable by JAX"),
        explained(who, f"`{name}` cannot be compiled", hint=hint, errors=UNTRACEABLE),
    ):
        first, second = _traced_twice(traced, key)
    if not any(dependent(first.jaxpr, [True] * len(first.jaxpr.invars))):
        wrong = f"`{name}` does not depend on its key: all tasks would be the same"
        hint = f"draw from the key with jax.random, or {fixed}"
        raise InnerloopError(who, wrong, hint=hint)
    _check_alike(first, second, who, name)


def check_repeatable(fn: Callable[..., PyTree], args: tuple[PyTree, ...], who: str, name: str) -> None:
    """Raise InnerloopError, on behalf of `who`, if `fn(*args)` has another source of randomness than its arguments.

    The arguments are arrays, or their `jax.ShapeDtypeStruct`; the function need not be random.
    """
    _check_alike(*_traced_twice(fn, *args), who, name)


def _traced_twice(fn: Callable[..., PyTree], *args: PyTree) -> tuple[jex.ClosedJaxpr, jex.ClosedJaxpr]:
    """Two traces of a function."""
    # A new function each time, or JAX would return the first jaxpr from its cache.
    first, second = (jax.make_jaxpr(lambda *args: fn(*args))(*args) for _ in range(2))
    return first, second


def _check_alike(first: jex.ClosedJaxpr, second: jex.ClosedJaxpr, who: str, name: str) -> None:
    """Raise InnerloopError if two traces of a function hold different numbers."""
    if not same_bits(list(constants_of(first)), list(constants_of(second))):
        wrong = f"`{name}` draws different numbers for the same key, and would draw them once for all tasks"
        raise InnerloopError(who, wrong, hint="draw from the key with jax.random")


def same_bits(a: list[object], b: list[object]) -> bool:
    """Whether two lists of numbers are bitwise equal."""
    return len(a) == len(b) and all(x is y or bits_of(x) == bits_of(y) for x, y in zip(a, b, strict=True))


def bits_of(x: object) -> bytes:
    """The bytes of a number or array, which may be a key."""
    if isinstance(x, jax.Array) and jnp.issubdtype(x.dtype, jax.dtypes.prng_key):
        x = jax.random.key_data(x)
    return np.asarray(x).tobytes()


def is_data(x: object) -> bool:
    """Whether a leaf is an array that a program can take; NumPy arrays must be in memory."""
    in_memory = isinstance(x, np.ndarray) and not isinstance(x, np.memmap)
    return isinstance(x, jax.Array) or (in_memory and is_numeric(x))


def split_arrays(tasks: TaskDistribution) -> tuple[PyTree, Callable[[PyTree], TaskDistribution]]:
    """The arrays of a distribution, and a function that returns the distribution with other arrays in their place.

    As constants they would be compiled into the program, where NumPy arrays cannot be indexed.

    Args:
        tasks: a pytree, or any other object, whose attributes are then searched.
    """
    plain = jax.tree_util.all_leaves([tasks]) and hasattr(tasks, "__dict__")
    arrays, rest = eqx.partition(vars(tasks) if plain else tasks, is_data)
    if not jax.tree.leaves(arrays):
        return arrays, lambda arrays: tasks
    whole = lambda arrays: eqx.combine(arrays, rest)
    return arrays, lambda arrays: _with_attributes(tasks, whole(arrays)) if plain else whole(arrays)


def with_jax_arrays(tasks: TaskDistribution) -> TaskDistribution:
    """The same distribution with JAX arrays: NumPy arrays cannot be indexed by traced values."""
    held, with_arrays = split_arrays(tasks)
    return with_arrays(jax.tree.map(jnp.asarray, held))


def _with_attributes(tasks: TaskDistribution, attributes: dict[str, object]) -> TaskDistribution:
    """A copy of an object with these attributes."""
    try:
        other = object.__new__(type(tasks))
    except TypeError:  # for a class implemented in C, such as types.SimpleNamespace
        other = copy.copy(tasks)
    vars(other).update(attributes)
    return other
