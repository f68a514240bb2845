"""Allows one training run at a time in a folder: an operating-system lock, which is released if its holder dies.

The file `lock` stays, with the process ID of the last holder for people to read; only the lock on it matters. So a
killed process holds no lock, and a copied folder is free.
"""

import os
import re
import socket
import stat
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from innerloop.errors import InnerloopError
from innerloop.io.files import cannot_write
from innerloop.io.folders import OwnFolder

NAME = "lock"
HOLDER = re.compile(r"process \d+ on [^\n]*\n?")
"""The content of the file."""


class Busy(InnerloopError):
    """Another training run holds the folder, so nothing in it may be changed."""


@contextmanager
def exclusive_lock(folder: OwnFolder) -> Iterator[None]:
    """Hold the folder's lock.

    Raises Busy if another training run has it, InnerloopError if the folder cannot be written to or if `lock` is not
    our file.
    """
    new = not os.path.lexists(folder.path_of(NAME))
    with open_lock_file(folder) as file:
        holder = last_holder(file, folder.path)
        if not try_lock(file) or not is_current(file, folder.path / NAME):
            hint = "wait until it ends, or give another folder"
            raise Busy(str(folder.path), "another training run is using it", got=holder, hint=hint)
        with suppress(OSError):  # the text is only for people to read, so a full disk does not matter
            os.truncate(file.fileno(), 0)
            os.write(file.fileno(), f"process {os.getpid()} on {socket.gethostname()}\n".encode())
        if new:
            folder.mark_written(folder.path / NAME, os.fstat(file.fileno()))
        yield  # closing the file releases the lock


def open_lock_file(folder: OwnFolder) -> IO[str]:
    """Open the lock file; create it if missing."""
    path = folder.path_of(NAME)
    flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
    with cannot_write(folder.path, "give write access, or copy the run to another folder"):
        return open(os.open(path, flags, 0o644), "a+", encoding="utf-8", errors="replace")  # noqa: SIM115


def last_holder(file: IO[str], folder: Path) -> str:
    """The last holder. Raises InnerloopError if this is not our lock file."""
    regular = stat.S_ISREG(os.fstat(file.fileno()).st_mode)
    if regular:
        file.seek(0)
    text = file.read(300) if regular else ""
    if not regular or (text and not HOLDER.fullmatch(text)):
        hint = "move it away, or give another folder"
        raise InnerloopError(str(folder / NAME), "was not written by innerloop", hint=hint)
    return text.strip() or "another process"


def is_current(file: IO[str], path: Path) -> bool:
    """Whether the open file is still the one at this path: a run that fails early removes its lock."""
    return os.path.lexists(path) and os.path.samestat(os.fstat(file.fileno()), os.lstat(path))


def try_lock(file: IO[str]) -> bool:
    """Try to lock an open file, without waiting."""
    try:
        import fcntl
    except ImportError:  # Windows
        return try_lock_on_windows(file)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as trouble:  # some network file systems have no locks
        warnings.warn(f"innerloop: {file.name} cannot be locked ({trouble.strerror})", stacklevel=2)
    return True


def try_lock_on_windows(file: IO[str]) -> bool:
    """The same without flock: lock one byte far beyond the text."""
    import msvcrt

    file.seek(1 << 20)
    try:
        msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)  # pyright: ignore[reportAttributeAccessIssue]
    except OSError:
        return False
    return True
