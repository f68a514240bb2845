"""Shards parameters over the mesh axis `model`, for models that are too large for one device.

Every large array of the parameters and of the optimiser's state is split along one axis, and each device of a group
holds one shard. The program is written as for one device: XLA's partitioner splits the matrix products of the inner
loop and of its derivative accordingly, and adds the communication. Groups share tasks as single devices do (axis
`tasks`).
"""

from collections.abc import Callable

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import PyTree

from innerloop.parallel.compile_once import compile_once
from innerloop.parallel.eager_mesh import or_eager
from innerloop.parallel.mesh import REPLICATED, by_process, local_copy, replicate
from innerloop.parallel.precision import with_exact_products

SMALL = 256
"""Arrays of fewer elements, such as biases, are replicated: sharding them costs more communication than it saves."""


def model_shards_of(mesh: Mesh) -> int:
    """The number of devices that share one copy of the parameters."""
    return mesh.shape.get("model", 1)


def _axis_to_shard(shape: tuple[int, ...], model_shards: int) -> int | None:
    """The longest axis divisible by `model_shards` (the last one of a tie), or None if the array is replicated."""
    fit = [axis for axis, length in enumerate(shape) if length % model_shards == 0]
    if model_shards == 1 or not fit or np.prod(shape) < SMALL:
        return None
    return max(fit, key=lambda axis: (shape[axis], axis))


def _sharding_of(leaf: PyTree, mesh: Mesh) -> NamedSharding:
    """The sharding of one array."""
    axis = _axis_to_shard(leaf.shape, model_shards_of(mesh))
    return NamedSharding(mesh, REPLICATED if axis is None else PartitionSpec(*[None] * axis, "model"))


def constrain_sharding(tree: PyTree, mesh: Mesh) -> PyTree:
    """Keep every large array of a tree sharded; for use inside the mesh."""
    if model_shards_of(mesh) == 1:
        return tree
    return jax.tree.map(lambda x: jax.lax.with_sharding_constraint(x, _sharding_of(x, mesh)), tree)


def _compiler_options(mesh: Mesh) -> dict[str, bool] | None:
    """XLA options against deadlocks: on a CPU, independent collectives could run in different orders."""
    on_cpu = mesh.devices.flat[0].platform == "cpu"
    return (
        {"xla_cpu_enable_concurrency_optimized_scheduler": False}
        if model_shards_of(mesh) > 1 and on_cpu
        else None
    )


def on_mesh(
    function: Callable[..., PyTree],
    mesh: Mesh,
    in_specs: PyTree,
    out_specs: PyTree,
    donate_argnums: int | None = None,
) -> Callable[..., PyTree]:
    """Compile a function that every device of the axis `tasks` runs on its own tasks.

    The function itself must shard arrays over `model` (`constrain_sharding`). If nothing is donated, equal programs are
    compiled once.
    """
    exact = with_exact_products(function)
    # pmean makes results the same on every device, but `check_vma` cannot see that through a scan.
    shared = jax.shard_map(
        exact, mesh=mesh, in_specs=in_specs, out_specs=out_specs, axis_names={"tasks"}, check_vma=False
    )
    options = _compiler_options(mesh)
    if donate_argnums is None:
        compiled = compile_once(shared, options)
    else:
        compiled = jax.jit(shared, compiler_options=options, donate_argnums=donate_argnums)
    if model_shards_of(mesh) > 1 or len(by_process(list(mesh.devices.flat))) > 1:
        return compiled
    return or_eager(compiled, exact, mesh, in_specs, out_specs)


def shard_params(tree: PyTree, mesh: Mesh) -> PyTree:
    """Shard the large arrays of a tree over the mesh. All processes must pass the same values."""
    return jax.tree.map(lambda leaf: _placed(leaf, mesh), tree)


def _placed(leaf: PyTree, mesh: Mesh) -> jax.Array:
    """Shard one array over the devices of this process, unless it already is."""
    sharding = _sharding_of(leaf, mesh)
    if sharding.spec == REPLICATED:
        return replicate(leaf, mesh)
    if isinstance(leaf, jax.Array) and leaf.sharding.is_equivalent_to(sharding, leaf.ndim):
        return leaf
    whole = np.asarray(local_copy(leaf))
    return jax.make_array_from_callback(whole.shape, sharding, lambda piece: whole[piece])
