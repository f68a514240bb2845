"""The mesh of devices that share the tasks, and the placement of arrays on it.

The mesh has the axis `tasks` and, for large models, the axis `model`, over which one copy of the parameters is split
(`innerloop.parallel.param_sharding`). Its devices may belong to one process or several, on one machine or several. Each
process holds only the shards of its own devices, and JAX treats them as one array. With the helpers here, a program is
the same in both cases.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import PyTree

from innerloop.errors import InnerloopError, check_count
from innerloop.io.text import counted
from innerloop.parallel.precision import at_least_float32

REPLICATED = PartitionSpec()
"""Replicated on every device."""

SPLIT = PartitionSpec("tasks")
"""The leading axis sharded over the mesh axis `tasks`."""


@runtime_checkable
class Device(Protocol):
    """The required part of a `jax.Device`."""

    process_index: int


def task_mesh(meta_batch: int, devices: Sequence[Device] | None = None, model_shards: int = 1) -> Mesh:
    """A mesh over as many devices (or groups of `model_shards`) of each process as divide the meta-batch evenly.

    Args:
        meta_batch: the number of tasks to share.
        devices: the devices of all processes (None: JAX's).
        model_shards: the number of devices that share one copy of the parameters.

    Raises:
        InnerloopError: if the meta-batch is not a multiple of the number of processes, or the groups do not
            use all devices.
    """
    meta_batch = check_count("task_mesh", "meta_batch", meta_batch)
    every = by_process(jax.devices() if devices is None else devices)
    hosts = [_groups(host, model_shards) for host in every]
    share, rest = divmod(meta_batch, len(hosts))
    if rest:
        raise InnerloopError(
            "outer.meta_batch",
            "must be a multiple of the number of processes",
            got=f"{counted(meta_batch, 'task')} for {len(hosts)} processes",
            hint="change `outer.meta_batch` or the number of processes",
        )
    each = max(n for n in range(1, min(map(len, hosts)) + 1) if share % n == 0)
    groups = [group for host in hosts for group in host[:each]]
    return (
        Mesh(np.array(groups), ("tasks", "model"))
        if model_shards > 1
        else Mesh(np.array(groups)[:, 0], ("tasks",))
    )


def _groups(devices: list[Device], model_shards: int) -> list[list[Device]]:
    """The devices of one process in groups of `model_shards`. Raises InnerloopError if some would be left over."""
    if model_shards < 1 or len(devices) % model_shards:
        raise InnerloopError(
            "outer.model_shards",
            "must divide the devices of each process",
            got=f"{counted(model_shards, 'shard')} on {counted(len(devices), 'device')}",
            hint="change `outer.model_shards` or the number of devices",
        )
    return [devices[first : first + model_shards] for first in range(0, len(devices), model_shards)]


def by_process(devices: Sequence[Device]) -> list[list[Device]]:
    """The devices of each process, in the order of the processes."""
    hosts: dict[int, list[Device]] = {}
    for device in devices:
        hosts.setdefault(device.process_index, []).append(device)
    return [hosts[index] for index in sorted(hosts)]


def replicate(tree: PyTree, mesh: Mesh) -> PyTree:
    """Replicate a tree on every device of the mesh. All processes must pass the same values."""
    if mesh.is_multi_process:
        return jax.tree.map(lambda leaf: _on_every_device(leaf, mesh), tree)
    return jax.device_put(tree, NamedSharding(mesh, REPLICATED))


def _on_every_device(leaf: PyTree, mesh: Mesh) -> jax.Array:
    """Copy one array to the devices of this process, unless already there; nothing is sent between processes."""
    everywhere = NamedSharding(mesh, REPLICATED)
    if isinstance(leaf, jax.Array) and leaf.sharding == everywhere:
        return leaf
    local = local_copy(leaf) if isinstance(leaf, jax.Array) else np.asarray(leaf)
    # In the order of the mesh, as PRNG key arrays require.
    copies = [jax.device_put(local, device) for device in _local_devices(mesh)]
    return jax.make_array_from_single_device_arrays(copies[0].shape, everywhere, copies)


@contextmanager
def on_host() -> Iterator[Device]:
    """Compute on the CPU: for work that should not wait for an accelerator, or is too large for one."""
    try:
        host = jax.local_devices(backend="cpu")[0]
    except RuntimeError:  # JAX_PLATFORMS excludes the CPU
        host = jax.local_devices()[0]
    with jax.default_device(host):
        yield host


def to_host(mesh: Mesh) -> Callable[[PyTree], PyTree]:
    """A function that fetches a tree sharded over the mesh as whole NumPy arrays, in every process."""
    if not mesh.is_multi_process:
        return lambda tree: jax.tree.map(np.asarray, tree)
    gather = jax.jit(lambda tree: tree, out_shardings=NamedSharding(mesh, REPLICATED))
    return lambda tree: jax.tree.map(lambda x: np.asarray(x.addressable_data(0)), gather(tree))


def local_tasks(mesh: Mesh, meta_batch: int) -> slice:
    """The tasks of a meta-batch that belong to this process."""
    groups, own = mesh.shape["tasks"], _local_devices(mesh)
    share, shards = meta_batch // groups, mesh.size // groups
    first = list(mesh.devices.flat).index(own[0]) // shards * share
    return slice(first, first + len(own) // shards * share)


def _local_devices(mesh: Mesh) -> list[Device]:
    """The devices of this process, in the order of the mesh."""
    return [device for device in mesh.devices.flat if device.process_index == jax.process_index()]


def from_local_shards(tree: PyTree, split: NamedSharding) -> PyTree:
    """Make arrays over the whole mesh from the shards of this process."""
    if split.mesh.is_multi_process:
        return jax.tree.map(lambda x: jax.make_array_from_process_local_data(split, x), tree)
    return jax.device_put(tree, split)


def local_copy(x: PyTree) -> PyTree:
    """A local copy of an array of which this process holds every shard."""
    if not isinstance(x, jax.Array) or x.is_fully_addressable:
        return x
    if x.is_fully_replicated:
        return x.addressable_data(0)
    whole = np.empty(x.shape, x.dtype)
    for piece in x.addressable_shards:
        whole[piece.index] = piece.data
    return whole


def mean_over_devices(tree: PyTree, sharded: bool = False) -> PyTree:
    """Mean over the mesh axis `tasks`, inside the mesh; its bits do not depend on how devices are split into processes.

    An all-reduce sums in different orders within a process and between processes. Here each device receives its slice
    of the values of every device (all-to-all), sums it in the order of the devices, and shares the sum (all-gather).
    Each device sends 2 (n - 1) / n times the size of the tree, as in a ring all-reduce. Arrays that are sharded over
    other devices (`sharded`) are all-reduced, so that they need not be gathered.
    """
    n = jax.lax.axis_size("tasks")
    if n == 1:
        return tree
    wide = jax.tree.map(at_least_float32, tree)
    # The order of two does not matter: a + b = b + a.
    means = _mean_in_order(wide) if n > 2 and not sharded else jax.lax.pmean(wide, "tasks")
    return jax.tree.map(lambda x, mean: mean.astype(x.dtype), tree, means)


def _mean_in_order(tree: PyTree) -> PyTree:
    """The mean over more than two devices, added up in the order of the devices."""
    n = jax.lax.axis_size("tasks")
    flat, restore = ravel_pytree(tree)
    pieces = jnp.pad(flat, (0, -len(flat) % n)).reshape(n, -1)
    mean = jax.lax.all_to_all(pieces, "tasks", 0, 0).sum(0) / n
    return restore(jax.lax.all_gather(mean, "tasks", tiled=True)[: len(flat)])
