"""Distributions of tasks that users bring: checked in the traced program, and split into arrays and the rest."""

import copy
from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.extend import core as jex
from jaxtyping import PRNGKeyArray, PyTree

from innerloop.engine.dependence import dependent, numbers_within
from innerloop.engine.types import TaskDistribution
from innerloop.errors import InnerloopError, first_line

UNTRACEABLE = (jax.errors.JAXTypeError, jax.errors.JAXIndexError)


def check_key(key: object, who: str) -> None:
    """Raise InnerloopError, on behalf of `who`, unless this is one key of `jax.random`, of the old or the new kind."""
    array = key if isinstance(key, jax.Array | np.ndarray) else None
    if array is not None and _is_key(array):
        return
    got = repr(key) if array is None else f"{array.dtype} of shape {array.shape}"
    raise InnerloopError(who, "`key` must be one key of jax.random", got=got, do="pass jax.random.key(0)")


def _is_key(array: np.ndarray | jax.Array) -> bool:
    """Whether an array is one key: typed, or the numbers of one."""
    if jnp.issubdtype(array.dtype, jax.dtypes.prng_key):
        return array.shape == ()
    return array.dtype == jnp.uint32 and array.shape == jax.random.key_data(jax.random.key(0)).shape


def check_distribution(tasks: TaskDistribution, key: PRNGKeyArray, who: str, argument: str = "tasks") -> None:
    """Raise InnerloopError, on behalf of `who`, unless this is a distribution whose tasks are drawn from their keys.

    Args:
        tasks: what was given as a distribution.
        key: any key of the kind that is used.
        who: the caller.
        argument: what it was given as.

    Raises:
        InnerloopError: there is no method `sample`, it gives no `Task`, it cannot be traced, its tasks do not depend on
            the key, or they depend on what it draws elsewhere.
    """
    if isinstance(tasks, type) or not callable(getattr(tasks, "sample", None)):
        got = f"the class {tasks.__name__}" if isinstance(tasks, type) else f"a {type(tasks).__name__}"
        do = "pass an object with a method `sample(key)` that returns a Task"
        raise InnerloopError(who, f"`{argument}` must be a distribution of tasks", got=got, do=do)
    check_random(tasks.sample, key, who, f"{type(tasks).__name__}.sample", _check_task)


def _check_task(task: object, who: str, name: str) -> None:
    """Raise InnerloopError unless a task is a pytree of arrays with a support and a query set."""
    if not (hasattr(task, "support") and hasattr(task, "query")) or jax.tree_util.all_leaves([task]):
        do = "return innerloop.Task(support, query)"
        raise InnerloopError(who, f"`{name}` must return a Task", got=f"a {type(task).__name__}", do=do)
    for leaf in jax.tree.leaves(task):
        if not isinstance(leaf, bool | int | float | complex) and not is_data(leaf):
            got, do = f"a {type(leaf).__name__}", "keep names and the like in the distribution"
            raise InnerloopError(who, f"`{name}` must return a Task of arrays", got=got, do=do)


def check_random(
    draw: Callable[[PRNGKeyArray], PyTree],
    key: PRNGKeyArray,
    who: str,
    name: str,
    check: Callable[[object, str, str], None] = lambda drawn, who, name: None,
) -> None:
    """Raise InnerloopError, on behalf of `who`, unless `draw` is random by its key, and by nothing else.

    Args:
        draw: `draw(key)`, a pytree of arrays.
        key: any key of the kind that is used.
        who: the caller.
        name: of `draw`, for messages.
        check: `check(drawn, who, name)` looks at what was drawn.
    """
    check_key(key, who)

    def traced(key: PRNGKeyArray) -> PyTree:
        drawn = draw(key)
        check(drawn, who, name)
        return drawn

    try:
        first, second = _traced_twice(traced, key)
    except UNTRACEABLE as error:
        reason = first_line(error)
        do = "hold arrays as attributes, index them by numbers of jax.random, and choose by jnp.where"
        raise InnerloopError(who, f"`{name}` cannot be compiled ({reason})", do=do) from error
    except (TypeError, ValueError) as error:
        if isinstance(error, InnerloopError):
            raise
        reason, do = first_line(error), "it is called with one key, and traced by JAX"
        raise InnerloopError(who, f"`{name}` cannot be called ({reason})", do=do) from error
    if not any(dependent(first.jaxpr, [True] * len(first.jaxpr.invars))):
        wrong = f"`{name}` does not depend on its key: all tasks would be the same"
        do = "draw from the key, by jax.random; tasks that are fixed are an innerloop.TaskList"
        raise InnerloopError(who, wrong, do=do)
    _check_alike(first, second, who, name)


def check_repeatable(fn: Callable[..., PyTree], args: tuple[PyTree, ...], who: str, name: str) -> None:
    """Raise InnerloopError, on behalf of `who`, if `fn(*args)` draws random numbers from elsewhere than its arguments.

    Args:
        fn: a function that can be traced; it need not be random.
        args: arrays, or their `jax.ShapeDtypeStruct`.
        who: the caller.
        name: of `fn`, for messages.
    """
    _check_alike(*_traced_twice(fn, *args), who, name)


def _traced_twice(fn: Callable[..., PyTree], *args: PyTree) -> tuple[jex.ClosedJaxpr, jex.ClosedJaxpr]:
    """Two traces of a function."""
    # A function of its own each time, or JAX would remember the first jaxpr.
    first, second = (jax.make_jaxpr(lambda *args: fn(*args))(*args) for _ in range(2))
    return first, second


def _check_alike(first: jex.ClosedJaxpr, second: jex.ClosedJaxpr, who: str, name: str) -> None:
    """Raise InnerloopError if two traces of a function hold other numbers."""
    if not _same(list(numbers_within(first)), list(numbers_within(second))):
        wrong = f"`{name}` draws other numbers for the same key, and would draw them once for all tasks"
        raise InnerloopError(who, wrong, do="draw from the key, by jax.random")


def _same(a: list[object], b: list[object]) -> bool:
    """Whether two lists of numbers are equal to the bit."""
    return len(a) == len(b) and all(x is y or bits_of(x) == bits_of(y) for x, y in zip(a, b, strict=True))


def bits_of(x: object) -> bytes:
    """The bytes of a number or array, which may be a key."""
    if isinstance(x, jax.Array) and jnp.issubdtype(x.dtype, jax.dtypes.prng_key):
        x = jax.random.key_data(x)
    return np.asarray(x).tobytes()


def is_data(x: object) -> bool:
    """Whether a leaf is an array that a program can take; of NumPy's those in memory."""
    numbers = isinstance(x, np.ndarray) and x.dtype.kind in "biufc" and not isinstance(x, np.memmap)
    return numbers or isinstance(x, jax.Array)


def split_arrays(tasks: TaskDistribution) -> tuple[PyTree, Callable[[PyTree], TaskDistribution]]:
    """The arrays of a distribution, and the function that puts others in their place.

    As constants they would be compiled into the program, and NumPy's cannot be indexed in it.

    Args:
        tasks: a pytree, or any object, whose attributes are then looked through.
    """
    plain = jax.tree_util.all_leaves([tasks]) and hasattr(tasks, "__dict__")
    arrays, rest = eqx.partition(vars(tasks) if plain else tasks, is_data)
    if not jax.tree.leaves(arrays):
        return arrays, lambda arrays: tasks
    whole = lambda arrays: eqx.combine(arrays, rest)
    return arrays, lambda arrays: _with_attributes(tasks, whole(arrays)) if plain else whole(arrays)


def _with_attributes(tasks: TaskDistribution, attributes: dict[str, object]) -> TaskDistribution:
    """A copy of an object with these attributes."""
    try:
        other = object.__new__(type(tasks))
    except TypeError:  # of a class that is not Python's own, such as types.SimpleNamespace
        other = copy.copy(tasks)
    vars(other).update(attributes)
    return other
