"""Division of a meta-batch over devices and into chunks of equal size."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax.experimental.layout import Layout, with_layout_constraint
from jax.sharding import Mesh
from jaxtyping import Array, PyTree

from innerloop.errors import InnerloopError
from innerloop.io.text import counted
from innerloop.parallel.precision import at_least_float32


def divisor_up_to(number: int, maximum: int) -> int:
    """The largest divisor of `number` that is at most `maximum`; at least 1."""
    return max((n for n in range(1, min(maximum, number) + 1) if number % n == 0), default=1)


def mean_in_chunks(one: Callable[[PyTree], PyTree], items: PyTree, chunk: int) -> PyTree:
    """The mean of `one(item)` over the leading axis of `items`, `chunk` items at a time, in floating point.

    Only the running sum is kept, in float32 if the items are in half precision: half precision would stop adding after
    a few hundred tasks, or overflow.
    """

    def add_chunk(total: PyTree, items: PyTree) -> tuple[PyTree, None]:
        # A chunk of one is not vmapped: batched kernels are slower than plain ones on a CPU.
        part = wide(first(items)) if chunk == 1 else jax.vmap(wide)(items)
        part = part if chunk == 1 else jax.tree.map(summed, part)
        return jax.tree.map(jnp.add, total, part), None

    summed = lambda x: (in_memory_order(x) if jax.default_backend() == "gpu" else x).sum(0)
    # Integers and booleans, such as a mask, have a mean only as floats.
    as_float = lambda x: x if jnp.issubdtype(x.dtype, jnp.inexact) else x.astype(float)
    # Traced once, for the shapes and for the sum: tracing is a large part of what it takes to start.
    in_floats = jax.jit(lambda item: jax.tree.map(as_float, one(item)), inline=True)
    wide = lambda item: jax.tree.map(at_least_float32, in_floats(item))
    first = lambda tree: jax.tree.map(lambda x: x[0], tree)
    shapes = jax.eval_shape(in_floats, first(items))
    zeros = jax.tree.map(lambda x: at_least_float32(jnp.zeros(x.shape, x.dtype)), shapes)
    count = jax.tree.leaves(items)[0].shape[0]
    # Not -1: an array may be empty, like the query set of a Reptile task.
    chunks = jax.tree.map(lambda x: x.reshape(count // chunk, chunk, *x.shape[1:]), items)
    total, _ = jax.lax.scan(add_chunk, zeros, chunks)
    return jax.tree.map(lambda x, shape: (x / count).astype(shape.dtype), total, shapes)


def in_memory_order(x: Array) -> Array:
    """The same array, laid out in the order of its axes regardless of what reads it.

    On a GPU, XLA would give the operand of a long sum a layout in which the summed axes are contiguous, and so write
    the whole array once more.
    """
    return with_layout_constraint(x, Layout(major_to_minor=tuple(range(x.ndim))))


def split_evenly(meta_batch: int, mesh: Mesh, chunk: int | None, who: str) -> tuple[int, int]:
    """The number of tasks per device, and per chunk (None: all tasks of a device).

    Raises:
        InnerloopError: on behalf of `who`, if the meta-batch is not a multiple of devices x chunk.
    """
    if "tasks" not in getattr(mesh, "shape", ()):
        hint = "pass innerloop.parallel.task_mesh(meta_batch), for example"
        raise InnerloopError(who, "`mesh` must be a mesh with an axis `tasks`", got=repr(mesh), hint=hint)
    groups: int = mesh.shape["tasks"]
    share = meta_batch // groups
    chunk = share if chunk is None else chunk
    if meta_batch < 1 or chunk < 1 or share * groups != meta_batch or share % chunk:
        raise InnerloopError(
            who,
            "`meta_batch` must be a multiple of devices x chunk",
            got=f"{counted(meta_batch, 'task')} on {counted(groups, 'device')} in chunks of {chunk}",
        )
    return share, chunk
