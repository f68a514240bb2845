"""Runs a program of the mesh without compiling it, for debugging under `jax.disable_jit()`.

There, `jax.shard_map` recompiles every operation each time it occurs: a minute for one update of a small network. A
`jax.vmap` over devices gives the same values, and compiles its operations once for each shape.
"""

from collections.abc import Callable
from functools import wraps

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, PartitionSpec
from jaxtyping import Array, PyTree


def or_eager(
    compiled: Callable[..., PyTree],
    function: Callable[..., PyTree],
    mesh: Mesh,
    in_specs: PyTree,
    out_specs: PyTree,
) -> Callable[..., PyTree]:
    """`compiled`, or under `jax.disable_jit()` the same computation, operation by operation.

    The mesh must have only the axis `tasks`, and all of its devices must belong to this process.
    """

    @wraps(compiled)
    def call(*arguments: PyTree) -> PyTree:
        if not jax.config.jax_disable_jit:  # pyright: ignore[reportAttributeAccessIssue]
            return compiled(*arguments)
        specs = [in_specs] * len(arguments) if isinstance(in_specs, PartitionSpec) else list(in_specs)
        # With arrays on several devices, every operation would run on all of them.
        arguments = jax.tree.map(lambda x: jax.device_put(x, jax.devices()[0]), arguments)
        if mesh.size == 1:
            return _on_one(function, arguments)
        return _on_several(function, arguments, specs, out_specs, mesh.size)

    return call


def _on_one(function: Callable[..., PyTree], arguments: tuple[PyTree, ...]) -> PyTree:
    """The result of one device: the axis has a name, but nothing is stacked along it."""
    axes = (0, *[None] * len(arguments))
    named = jax.vmap(lambda _, *given: function(*given), axes, None, axis_name="tasks")
    return named(jnp.zeros(1), *arguments)


def _on_several(
    function: Callable[..., PyTree],
    arguments: tuple[PyTree, ...],
    specs: list[PartitionSpec],
    out_specs: PyTree,
    devices: int,
) -> PyTree:
    """The results of several devices, combined."""
    local = [_local(x, spec, devices) for x, spec in zip(arguments, specs, strict=True)]
    axes = [_axis(spec) for spec in specs]
    each = jax.vmap(function, axes, axis_name="tasks", axis_size=devices)(*local)
    return jax.tree.map(lambda x: _whole(x, out_specs), each)


def _axis(spec: PartitionSpec) -> int | None:
    """The axis that is split over the devices; None if replicated."""
    return list(spec).index("tasks") if "tasks" in spec else None


def _local(tree: PyTree, spec: PartitionSpec, devices: int) -> PyTree:
    """An argument on one device, with an axis `devices` before the split one."""
    axis = _axis(spec)
    if axis is None:
        return tree
    cut = lambda x: x.reshape(*x.shape[:axis], devices, x.shape[axis] // devices, *x.shape[axis + 1 :])
    return jax.tree.map(cut, tree)


def _whole(x: Array, spec: PartitionSpec) -> Array:
    """A whole result, from the one that `jax.vmap` stacked along the first axis."""
    axis = _axis(spec)
    if axis is None:
        return x[0]
    x = jnp.moveaxis(x, 0, axis)
    return x.reshape(*x.shape[:axis], -1, *x.shape[axis + 2 :])
