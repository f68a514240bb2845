"""Reads untrusted files, text and JSON: completely, or with a one-sentence error.

A path may name a pipe that never ends, a device, a link to either, or a sparse file of a hundred gigabytes. Only
regular files are read here, and only up to a size limit.

On hostile text `json` raises five kinds of errors: for bad bytes, bad syntax, nesting too deep, numbers too long, and
lone surrogates. Here they become one.
"""

import errno
import json
import math
import os
import stat
from io import BufferedReader
from pathlib import Path
from typing import Any

from innerloop.errors import InnerloopError
from innerloop.io.digests import sha256

JsonObject = dict[str, Any]
"""A JSON object."""

RESTORE = "restore the file"
TEXT = 1 << 24
"""The default size limit of text in bytes, and the limit of JSON in characters: parsed, it may take 50 times as much
memory."""

_KINDS = {
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a FIFO",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFLNK: "a symbolic link",
}
# Without O_NONBLOCK, opening a FIFO waits for a writer. Windows has neither flag, and needs O_BINARY.
_FLAGS = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)


def open_regular(path: Path, limit: int, *, follow: bool = True) -> BufferedReader:
    """Open a regular file of at most `limit` bytes for reading.

    Without `follow`, a symbolic link is refused: a run's folder contains none.

    Raises:
        InnerloopError: if the file is missing, not a regular file, too large, or cannot be opened.
    """
    try:
        _check(path, os.stat(path, follow_symlinks=follow), limit)  # some devices act when opened
        handle = os.open(path, _FLAGS | (0 if follow else getattr(os, "O_NOFOLLOW", 0)))
    except OSError as trouble:
        link = trouble.errno == errno.ELOOP
        wrong = "is a symbolic link" if link else f"cannot be read ({trouble.strerror})"
        raise InnerloopError(str(path), wrong) from None
    except InnerloopError:
        raise
    except ValueError as trouble:  # a NUL or a lone surrogate in the name
        raise InnerloopError(repr(str(path)), f"is not a valid file name ({trouble})") from None
    file = os.fdopen(handle, "rb")
    try:
        _check(path, os.fstat(handle), limit)  # it may have been replaced meanwhile
    except InnerloopError:
        file.close()
        raise
    return file


def _check(path: Path, about: os.stat_result, limit: int) -> None:
    if not stat.S_ISREG(about.st_mode):
        kind = _KINDS.get(stat.S_IFMT(about.st_mode), "something else")
        raise InnerloopError(str(path), "cannot be read: it must be a regular file", got=kind)
    if about.st_size > limit:
        raise _too_large(path, limit, f"{about.st_size} bytes")


def _too_large(path: Path, limit: int, got: str) -> InnerloopError:
    return InnerloopError(str(path), f"is larger than the bound of {limit} bytes", got=got)


def read_bytes(path: Path, limit: int, *, follow: bool = True) -> bytes:
    """The content of a regular file of at most `limit` bytes. Raises InnerloopError as `open_regular`."""
    with open_regular(path, limit, follow=follow) as file:
        try:
            size = os.fstat(file.fileno()).st_size
            content = file.read(size + 1)
            while size < len(content) <= limit and (more := file.read(1 << 16)):  # it grows, or has no size
                content += more
        except OSError as trouble:
            raise InnerloopError(str(path), f"cannot be read ({trouble.strerror})") from None
    if len(content) > limit:
        raise _too_large(path, limit, "more")
    return content


def sha256_of(path: Path, limit: int, *, follow: bool = True) -> str:
    """The sha256 of a regular file of at most `limit` bytes. Raises InnerloopError as `open_regular`."""
    with open_regular(path, limit, follow=follow) as file:
        return sha256(iter(lambda: file.read(1 << 20), b"")).hex()


def read_text(path: Path, limit: int = TEXT, *, follow: bool = True) -> str:
    """The text of a UTF-8 file. Raises InnerloopError if it cannot be read or is not UTF-8."""
    try:
        return read_bytes(path, limit, follow=follow).decode("utf-8")
    except UnicodeDecodeError as trouble:
        raise InnerloopError(str(path), f"is not UTF-8 text ({trouble.reason})", hint=RESTORE) from None


def parse_json(text: str, who: str, *, finite: bool = True) -> Any:
    """A JSON value. Raises InnerloopError for text that is not JSON, is nested too deeply or is too long.

    With `finite`, numbers must be finite and no larger than the largest float.
    """
    if len(text) > TEXT:
        raise InnerloopError(who, f"is longer than the bound of {TEXT} characters", got=len(text))
    hooks = {"parse_constant": _infinite, "parse_float": _float, "parse_int": _int} if finite else {}
    try:
        value = json.loads(text, **hooks)
        json.dumps(value, ensure_ascii=False).encode("utf-8")  # a lone surrogate could not be written back
    except RecursionError:
        raise InnerloopError(who, "is not JSON (nested too deeply)", hint=RESTORE) from None
    except ValueError as trouble:
        raise InnerloopError(who, f"is not JSON ({trouble})", hint=RESTORE) from None
    return value


def _infinite(digits: str) -> float:
    raise ValueError(f"a number that is not finite: {digits[:40]}")


def _float(digits: str) -> float:
    value = float(digits)
    return value if math.isfinite(value) else _infinite(digits)


def _int(digits: str) -> int:
    _float(digits)
    return int(digits)


def read_object(path: Path, limit: int = TEXT, *, follow: bool = True) -> JsonObject:
    """Read a file that holds one JSON object. Raises InnerloopError for anything else."""
    value = parse_json(read_text(path, limit, follow=follow), str(path))
    if not isinstance(value, dict):
        raise InnerloopError(str(path), "must hold one JSON object", got=type(value).__name__, hint=RESTORE)
    return value


def is_number(value: object) -> bool:
    """Whether a JSON value is a number (true and false are not)."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def refuse_link(path: Path) -> None:
    """Raise InnerloopError for a symbolic link; there should be none in a run's folder."""
    if path.is_symlink():
        raise InnerloopError(str(path), "is a symbolic link", hint="put the file itself there")
