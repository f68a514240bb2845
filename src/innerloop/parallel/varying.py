"""Which arrays differ between the devices of a mesh, within the user's own `jax.shard_map`.

There JAX sums the gradient with respect to an array that is the same on every device over all devices. But an inner
loop belongs to one task and needs the gradient of that task's loss alone, so its parameters are first marked as varying
wherever the task does. Elsewhere nothing varies, and nothing is changed.
"""

import jax
import numpy as np
from jax import lax
from jaxtyping import PyTree


def varying_axes(*trees: PyTree) -> frozenset[str]:
    """The axes of a mesh over which an array among the leaves varies; none outside `jax.shard_map`."""
    return frozenset[str]().union(*map(_axes_of, jax.tree.leaves(trees)))


def varying_over(axes: frozenset[str], tree: PyTree) -> PyTree:
    """The same arrays, marked as varying over these axes too; other leaves as they are."""
    return jax.tree.map(lambda x: _marked(x, axes - _axes_of(x)), tree) if axes else tree


def _marked(x: PyTree, missing: frozenset[str]) -> PyTree:
    """One leaf, marked as varying over the axes that it lacks."""
    array = isinstance(x, jax.Array | np.ndarray | np.generic)
    return lax.pcast(x, tuple(sorted(missing)), to="varying") if missing and array else x


def _axes_of(x: PyTree) -> frozenset[str]:
    """The axes over which one leaf varies."""
    kind = jax.typeof(x) if isinstance(x, jax.Array) else None
    return getattr(getattr(kind, "manual_axis_type", None), "varying", frozenset())
