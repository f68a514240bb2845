"""Model state of a loss: a fresh container for every call, with the same structure at every step."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, PyTree

from innerloop.engine.pytree import kinds, paths
from innerloop.errors import InnerloopError


def fresh_state(state: PyTree) -> PyTree:
    """The same state in a new container, with its leaves as arrays.

    An `equinox.nn.State` cannot be used again once it has been written to, and Flax's variables are written in place,
    so a loss must not get a container that others hold.
    """
    return jax.tree.map(_here, state)


def _here(x: PyTree) -> Array:
    """The leaf as an array of the current trace and mesh.

    Equinox compares the type of a new value with that of the old one. The type of a constant does not include the mesh,
    whereas that of a value computed inside the mesh does.
    """
    return jnp.expand_dims(x, 0)[0]


def in_structure_of(before: PyTree, after: PyTree) -> PyTree:
    """The leaves of `after` in the structure of `before`, if both have the same paths.

    Structures also hold data that are not arrays (functions, markers, metadata). If the loss recreates these, two
    structures can compare unequal although nothing has changed.
    """
    same = paths(before) == paths(after)
    return jax.tree.structure(before).unflatten(jax.tree.leaves(after)) if same else after


def check_state(before: PyTree, after: PyTree) -> None:
    """Raise InnerloopError unless two states have the same paths, shapes and dtypes."""
    was, now = kinds(before), kinds(after)
    changed = [path for path in {**was, **now} if was.get(path) != now.get(path)]
    if changed:
        path, what = changed[0], "the new state must have the structure, shapes and dtypes of the old one"
        got = f"{now.get(path, 'nothing')} after {was.get(path, 'nothing')}"
        both = path in was and path in now
        hint = "cast or reshape it in the loss" if both else "return every leaf of the state"
        raise InnerloopError("Loss", what, got=got + (f" at `{path}`" if path else ""), hint=hint)
