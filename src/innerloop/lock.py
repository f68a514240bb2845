"""One training at a time on a run folder: a lock of the operating system, so that it is free when its holder dies.

The file `lock` stays, with the process number of the last holder for people to read; what counts is the lock on it.
A process that is killed holds nothing any more, and a folder copied elsewhere is free.
"""

import os
import socket
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from innerloop.errors import InnerloopError

NAME = "lock"


class Busy(InnerloopError):
    """Another training holds the folder: whatever lies in it is not ours to touch."""


@contextmanager
def alone_on(folder: Path) -> Iterator[None]:
    """Hold the folder's lock. Raises Busy if another training has it, InnerloopError if nothing can be written."""
    try:
        file = open(folder / NAME, "a+", encoding="utf-8")  # noqa: SIM115 (closed below, by its own block)
    except OSError as trouble:
        do = "give write access, or copy the run to another folder"
        raise InnerloopError(str(folder), f"cannot be written ({trouble.strerror})", do=do) from None
    with file:
        if not taken(file):
            file.seek(0)
            do = "wait until it ends, or give another folder"
            holder = file.read(200).strip() or "another process"
            raise Busy(str(folder), "another training is running in it", got=holder, do=do)
        with suppress(OSError):  # who holds it is for people to read: a full disk does not matter here
            os.truncate(folder / NAME, 0)
            os.write(file.fileno(), f"process {os.getpid()} on {socket.gethostname()}\n".encode())
        yield  # closing the file releases the lock


def taken(file: IO[str]) -> bool:
    """Try to lock an open file, without waiting."""
    try:
        import fcntl
    except ImportError:  # Windows
        return taken_on_windows(file)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as trouble:  # some network file systems have no locks
        warnings.warn(f"innerloop: {file.name} cannot be locked ({trouble.strerror})", stacklevel=2)
    return True


def taken_on_windows(file: IO[str]) -> bool:
    """The same where there is no flock: one byte far behind the text."""
    import msvcrt

    file.seek(1 << 20)
    try:
        msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)  # pyright: ignore[reportAttributeAccessIssue]
    except OSError:
        return False
    return True
