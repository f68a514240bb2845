"""Selection of parameters by tree path.

A path is written with slashes, as in `body/0/weight` or `head/bias`. In a pattern, `*` matches a name or part of one
and `**` any number of names: `blocks/*/attention`, `**/lora_*`.
"""

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike
from jaxtyping import Array, PyTree

from innerloop.errors import InnerloopError
from innerloop.parallel.precision import at_least_float32

Selection = str | Collection[str] | Callable[[str], bool] | None
"""A selection of parameters: None (all), a path prefix or pattern, several of these, or a function of the path."""


FORMS = "give a name like 'head', a pattern like '**/bias', several of these, or a function of the path"


@dataclass(frozen=True)
class Except:
    """The complement of a selection; unlike a lambda, it keeps the names so that they can be checked."""

    selection: Selection

    def __call__(self, path: str) -> bool:
        """Whether the path is outside the selection."""
        return not is_selected(self.selection, path)


def check_not_all(selection: Selection, who: str, name: str) -> None:
    """Raise InnerloopError, on behalf of `who`, if its argument `name` is None, which would select everything."""
    if selection is None:
        raise InnerloopError(who, f"`{name}` must be a selection of parameters", got="None", hint=FORMS)


def in_words(selection: Selection) -> str:
    """What a selection includes, in words."""
    if isinstance(selection, Except):
        return f"all but {in_words(selection.selection)}"
    if selection is None or isinstance(selection, str):
        return "all" if selection is None else selection
    if callable(selection):
        return getattr(selection, "__name__", type(selection).__name__)
    return ", ".join(sorted(selection)) or "none"  # a set has another order in every process


def check_selection(selection: Any) -> None:
    """Raise InnerloopError unless this has the form of a selection.

    A tree of booleans is not one: the keys of a mapping would be taken for names, and a model would be called.
    """
    if isinstance(selection, Except):
        return check_selection(selection.selection)
    inside = () if jax.tree_util.all_leaves([selection]) else jax.tree.leaves(selection)
    flags = bool(inside) and all(isinstance(leaf, bool) or hasattr(leaf, "dtype") for leaf in inside)
    if selection is None or isinstance(selection, str) or (callable(selection) and not flags):
        return None
    if isinstance(selection, Collection) and not isinstance(selection, Mapping):
        names = list(selection) if getattr(selection, "ndim", 1) == 1 else [None]
        if all(isinstance(name, str) for name in names):
            return None
    hint = "give the pattern's method, `pattern.search`" if isinstance(selection, re.Pattern) else FORMS
    raise InnerloopError("select", "is not a selection of parameters", got=selection, hint=hint)


def shapes_only(self: object) -> str:
    """A tree as text, with the dtype and shape of every array instead of its values; for use as `__repr__`."""
    return eqx.tree_pformat(self)


def paths(params: PyTree) -> list[str]:
    """The path of every leaf, in tree order."""
    return [path_in_words(path) for path, _ in jax.tree_util.tree_leaves_with_path(params)]


def path_in_words(path: Sequence[Any]) -> str:
    """A path of JAX's, with slashes."""
    return jax.tree_util.keystr(tuple(path), simple=True, separator="/")


def by_path(tree: PyTree) -> dict[str, PyTree]:
    """The leaves by path, in tree order."""
    return dict(zip(paths(tree), jax.tree.leaves(tree), strict=True))


def kinds(tree: PyTree) -> dict[str, str]:
    """Dtype and shape of every leaf, as in `float32[3]`, by path."""
    kind = lambda x: f"{x.dtype if hasattr(x, 'dtype') else jnp.result_type(x)}{list(jnp.shape(x))}"
    return {path: kind(x) for path, x in by_path(tree).items()}


def is_selected(selection: Selection, path: str) -> bool:
    """Whether the selection includes this path."""
    if selection is None:
        return True
    if callable(selection):
        return bool(selection(path))
    prefixes = (selection,) if isinstance(selection, str) else selection
    return any(_begins(path, prefix) for prefix in prefixes)


def _begins(path: str, prefix: str) -> bool:
    """Whether a path equals this prefix or lies below it; a prefix may be a pattern."""
    if path == prefix or path.startswith(prefix.rstrip("/") + "/"):
        return True
    return "*" in prefix and _matches(path.split("/"), prefix.rstrip("/").split("/"))


def _matches(names: Sequence[str], pattern: Sequence[str]) -> bool:
    """Whether the leading names match the pattern; `**` matches any number of names."""
    if not pattern:
        return True
    if pattern[0] == "**":
        return any(_matches(names[skipped:], pattern[1:]) for skipped in range(len(names) + 1))
    return bool(names) and _is_like(names[0], pattern[0]) and _matches(names[1:], pattern[1:])


def _is_like(name: str, pattern: str) -> bool:
    """Whether a name matches the pattern, in which only `*` is special."""
    return re.fullmatch(".*".join(map(re.escape, pattern.split("*"))), name) is not None


def partition(params: PyTree, selection: Selection) -> tuple[PyTree, PyTree]:
    """Split a tree into (selected, rest), each with the tree's structure and None in place of the other's leaves.

    To freeze the rest, make the loss a function of the selected part only and close over the rest.

    Args:
        params: any pytree.
        selection: a path prefix such as `head`, a pattern such as `**/lora_*`, several of these, or a function of the
            path.

    Raises:
        InnerloopError: if a name of the selection matches no parameter, or a function selects none.
    """
    _check_names(params, selection.selection if isinstance(selection, Except) else selection)
    mask = [is_selected(selection, path) for path in paths(params)]
    # If everything is excluded by name, an empty complement is intended.
    by_names = isinstance(selection, Except) and not callable(selection.selection)
    if callable(selection) and not by_names and not any(mask):
        hint = "the paths are: " + ", ".join(paths(params)) + "; () adapts none"
        raise InnerloopError("select", "the function selects no parameter", hint=hint)
    return eqx.partition(params, jax.tree.structure(params).unflatten(mask))


def _check_names(params: PyTree, selection: Selection) -> None:
    """Raise InnerloopError for a name that matches no parameter."""
    check_selection(selection)
    if selection is None or callable(selection):
        return
    for name in (selection,) if isinstance(selection, str) else selection:
        if not any(is_selected(name, path) for path in paths(params)):
            hint = "choose among: " + ", ".join(paths(params))
            raise InnerloopError("select", f"{name!r} matches no parameter", hint=hint)


def combine(selected: PyTree, rest: PyTree) -> PyTree:
    """Undo `partition`.

    Raises:
        InnerloopError: if the two are not parts of the same tree.
    """
    try:
        return jax.tree.map(lambda a, b: b if a is None else a, selected, rest, is_leaf=lambda x: x is None)
    except ValueError as error:
        hint = "give the two trees that `partition` returned"
        raise InnerloopError("combine", f"these are parts of different trees ({error})", hint=hint) from error


def cast(params: PyTree, dtype: DTypeLike, selection: Selection = None) -> PyTree:
    """Cast the selected float arrays of a tree to another dtype; integers, keys and functions are left unchanged.

    Args:
        params: any pytree.
        dtype: a float dtype, such as `jnp.bfloat16`.
        selection: a path prefix, a pattern, several of these, or a function of the path (None: all).

    Raises:
        InnerloopError: as for `partition`; or the dtype is not a float dtype, or is not available.
    """
    _check_floats(dtype)
    selected, rest = partition(params, selection)
    floats = lambda x: isinstance(x, jax.Array | np.ndarray) and jnp.issubdtype(x.dtype, jnp.floating)
    return combine(jax.tree.map(lambda x: jnp.asarray(x, dtype) if floats(x) else x, selected), rest)


def _check_floats(dtype: DTypeLike) -> None:
    """Raise InnerloopError unless this is a float dtype that is available."""
    try:
        floats = jnp.issubdtype(dtype, jnp.floating)
    except (TypeError, ValueError):
        floats = False
    if not floats:
        raise InnerloopError("cast", "needs a float dtype", got=dtype, hint="give jnp.bfloat16, for example")
    if jax.dtypes.canonicalize_dtype(dtype) != np.dtype(dtype):
        hint = 'call jax.config.update("jax_enable_x64", True) first'
        raise InnerloopError("cast", f"{np.dtype(dtype)} is not available", hint=hint)


def is_numeric(x: Any) -> bool:
    """Whether a leaf is an array of numbers, of any library, and not of keys, text or Python objects."""
    if isinstance(x, jax.Array):
        return not jnp.issubdtype(x.dtype, jax.dtypes.extended)
    if isinstance(x, np.ndarray | np.generic):
        return jnp.isdtype(x.dtype, ("bool", "numeric"))
    return hasattr(x, "dtype") and getattr(x.dtype, "kind", "f") not in "OSUmM"


def subtract(a: PyTree, b: PyTree) -> PyTree:
    """a - b, leaf by leaf."""
    return jax.tree.map(jnp.subtract, a, b)


def global_norm(tree: PyTree) -> Array:
    """The Euclidean norm over all leaves; float32 if they are in half precision."""
    return jnp.sqrt(sum(jnp.sum(jnp.square(at_least_float32(x))) for x in jax.tree.leaves(tree)))
