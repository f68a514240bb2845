"""Runs on several processes, with JAX's distributed runtime.

Every process runs the same program over one mesh of all devices and draws the tasks of its own devices; the mean over
tasks is the only communication in an update. Only the primary process reads and writes the run's folder. It broadcasts
what it reads to the others as bytes, so that no shared file system is needed and values agree to the bit.
"""

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import PyTree

from innerloop.errors import InnerloopError, first_line
from innerloop.parallel.mesh import by_process, to_host

PATIENCE = 60
"""Seconds without a heartbeat after which a process counts as lost."""


@dataclass(frozen=True)
class ProcessGroup:
    """The processes of a run. Fields that are None are taken from the environment or the cluster.

    Attributes:
        coordinator: address of the primary process, HOST:PORT.
        processes: the number of processes.
        process: the index of this process, from 0.
        patience: seconds without a heartbeat after which a process counts as lost.
    """

    coordinator: str | None = None
    processes: int | None = None
    process: int | None = None
    patience: int = PATIENCE


def _from_environment(meeting: ProcessGroup) -> ProcessGroup:
    """Fill in `JAX_COORDINATOR_ADDRESS`, `JAX_NUM_PROCESSES` and `JAX_PROCESS_ID`."""
    number = lambda name, given: _integer(name) if given is None and name in os.environ else given
    return ProcessGroup(
        meeting.coordinator or os.environ.get("JAX_COORDINATOR_ADDRESS"),
        number("JAX_NUM_PROCESSES", meeting.processes),
        number("JAX_PROCESS_ID", meeting.process),
        meeting.patience,
    )


def _integer(name: str) -> int:
    """An integer from an environment variable."""
    text = os.environ[name]
    if not text.isdecimal():
        raise InnerloopError(name, "must be a whole number", got=repr(text))
    return int(text)


def _check(meeting: ProcessGroup) -> None:
    """Raise InnerloopError for invalid settings."""
    if meeting.coordinator is not None and not meeting.coordinator.rpartition(":")[2].isdecimal():
        raise InnerloopError("distributed.coordinator", "must be HOST:PORT", got=repr(meeting.coordinator))
    if meeting.patience < 1:
        raise InnerloopError("distributed.patience", "must be 1 or more", got=meeting.patience)
    count, index = meeting.processes, meeting.process
    if (count is not None and count < 1) or (index is not None and index < 0):
        raise InnerloopError("distributed", "processes are counted from 0", got=f"{index} of {count}")
    if count is not None and index is not None and index >= count:
        raise InnerloopError("distributed.process", f"must be below {count}", got=index)


def _check_free(port: int) -> None:
    """Raise InnerloopError if the port is in use; JAX would end the process without a message."""
    try:
        socket.create_server(("", port)).close()
    except OSError as error:
        hint = "choose another port, the same for all processes"
        raise InnerloopError(
            "distributed.coordinator", f"the port cannot be used ({error.strerror})", got=port, hint=hint
        ) from None


def initialize(meeting: ProcessGroup) -> None:
    """Connect to the other processes; returns when all are connected. Call it before JAX is used.

    Raises:
        InnerloopError: if the settings are wrong or incomplete, or the other processes do not connect in
            time.
    """
    meeting = _from_environment(meeting)
    _check(meeting)
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    jax.config.update("jax_enable_preemption_service", False)  # we handle SIGTERM ourselves: save and stop
    # Otherwise collectives of two programs in flight at once could be mixed up.
    jax.config.update("jax_cpu_enable_async_dispatch", False)
    if meeting.process == 0 and meeting.coordinator is not None:
        _check_free(int(meeting.coordinator.rpartition(":")[2]))
    given = meeting.coordinator, meeting.processes, meeting.process
    try:
        jax.distributed.initialize(
            *given,
            cluster_detection_method=None if None in given else "deactivate",
            initialization_timeout=5 * meeting.patience,  # containers may start one after the other
            heartbeat_timeout_seconds=meeting.patience,
        )
    except (ValueError, RuntimeError) as error:
        hint = (
            "give `distributed.coordinator` HOST:PORT, `distributed.processes` N and `distributed.process` I"
        )
        reason = first_line(error).rstrip(".")
        raise InnerloopError("distributed", "the processes did not connect", got=reason, hint=hint) from None


def is_multi_process() -> bool:
    """Whether this is one of several processes."""
    return jax.process_count() > 1


def is_primary() -> bool:
    """Whether this is the process that reads and writes files."""
    return jax.process_index() == 0


def all_gather_bytes(data: bytes) -> list[bytes]:
    """The bytes of every process, of equal length, in the order of the processes."""
    if not is_multi_process():
        return [data]
    rows = to_host(_process_mesh())(_shared(data))
    return [row.tobytes() for row in rows]


def _process_mesh() -> Mesh:
    """One device of each process."""
    return Mesh(np.array([host[0] for host in by_process(jax.devices())]), ("processes",))


def _shared(data: bytes) -> jax.Array:
    """Bytes as an array `[processes, length]`, with each row on its own process."""
    mesh = _process_mesh()
    own = jax.device_put(np.frombuffer(data, np.uint8)[None], mesh.local_devices[0])
    shape = (mesh.size, len(data))
    return jax.make_array_from_single_device_arrays(
        shape, NamedSharding(mesh, PartitionSpec("processes")), [own]
    )


def all_gather_int(value: int) -> list[int]:
    """The integers of all processes, in the order of the processes."""
    return [
        int.from_bytes(data, "little", signed=True)
        for data in all_gather_bytes(value.to_bytes(8, "little", signed=True))
    ]


def from_first(data: bytes | None) -> bytes:
    """Broadcast the bytes of the primary process."""
    if not is_multi_process():
        return data or b""
    length = all_gather_int(len(data or b""))[0]
    own = data if is_primary() and data is not None else bytes(length)
    everywhere = NamedSharding(_process_mesh(), PartitionSpec())
    row = jax.jit(lambda rows: rows[0], out_shardings=everywhere)(_shared(own))
    return np.asarray(row.addressable_data(0)).tobytes()


def tree_from_first(tree: PyTree) -> PyTree:
    """Broadcast the arrays of the primary process; the other processes pass arrays of the same shapes and dtypes."""
    if not is_multi_process():
        return tree
    leaves, structure = jax.tree.flatten(tree)
    raw = [np.asarray(jax.random.key_data(x) if _is_key(x) else x) for x in leaves]
    told, found, place = from_first(b"".join(x.tobytes() for x in raw)), [], 0
    for leaf, own in zip(leaves, raw, strict=True):
        array = jax.numpy.asarray(
            np.frombuffer(told[place : place + own.nbytes], own.dtype).reshape(own.shape)
        )
        found.append(jax.random.wrap_key_data(array) if _is_key(leaf) else array)
        place += own.nbytes
    return structure.unflatten(found)


def _is_key(leaf: PyTree) -> bool:
    """Whether this is a PRNG key array."""
    return jax.numpy.issubdtype(leaf.dtype, jax.dtypes.prng_key)


SIGNS = ("Gloo", "NCCL", "UNAVAILABLE", "Connection")
"""Parts of the runtime's error messages when a collective lost a process; there is no exception class for that."""


class Lost(Exception):
    """Another process ended, or cannot be reached."""


@contextmanager
def detect_lost_process() -> Iterator[None]:
    """Raise Lost if a collective failed because another process ended."""
    try:
        yield
    except (jax.errors.JaxRuntimeError, ValueError) as error:
        if not is_multi_process() or not any(sign in str(error) for sign in SIGNS):
            raise
        raise Lost(first_line(error)) from error


def check_same(fingerprint: bytes, what: str) -> None:
    """Raise InnerloopError in every process unless all pass the same fingerprint of `what`."""
    brought = all_gather_bytes(fingerprint)
    different = [index for index, other in enumerate(brought) if other != brought[0]]
    if different:
        raise InnerloopError(
            f"process {different[0]}",
            f"has different {what} from the primary process",
            hint="start all processes with the same command, versions and data",
        )
