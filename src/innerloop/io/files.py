"""Writes, replaces and removes files, for all other modules.

Paths are resolved before anything is created. A file is written to a temporary one, synced and moved, so that it is
either complete or absent.
"""

import errno
import os
import stat
import tempfile
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from innerloop.errors import InnerloopError

AnyPath = str | os.PathLike[str]
"""A path as users give it."""

OVERWRITE = "give another name, or `overwrite` to replace it"


def as_path(path: object) -> Path:
    """A path as a Path. Raises InnerloopError for anything that is not one, and for an empty one."""
    if path == "":  # to pathlib, the current folder
        raise InnerloopError("path", "must name a file or folder", got="''")
    try:
        return Path(path)  # pyright: ignore[reportArgumentType]
    except TypeError:
        hint = "give a string or a pathlib.Path"
        raise InnerloopError("path", "this is not a path", got=repr(path), hint=hint) from None


def expanded(path: AnyPath, who: str) -> Path:
    """The path with `~` expanded. Raises InnerloopError if there is no such home folder."""
    try:
        return Path(path).expanduser()
    except RuntimeError:  # no such user, or the current one has neither HOME nor a passwd entry
        hint = "give the full path"
        raise InnerloopError(
            who, "names a home folder that does not exist", got=repr(str(path)), hint=hint
        ) from None


def resolved(path: Path | str) -> Path:
    """The absolute path without links and dots. Raises InnerloopError for a loop of links or a null byte."""
    path = as_path(path)
    try:
        return Path(os.path.realpath(path))
    except (OSError, ValueError) as trouble:
        raise InnerloopError(repr(str(path)), f"is not a path ({trouble})") from None


ELSEWHERE = (errno.ENOTDIR, errno.EEXIST, errno.EISDIR, errno.ENOENT, errno.ENAMETOOLONG, errno.ELOOP)
"""Errors that only another path avoids."""

FORBIDDEN = (errno.EACCES, errno.EPERM, errno.EROFS)
"""Errors for want of write access."""


@contextmanager
def cannot_write(path: Path, hint: str = "") -> Iterator[None]:
    """Turn an OSError raised in the block into an InnerloopError about `path`; without a hint, one that fits."""
    try:
        yield
    except OSError as trouble:
        wrong = f"cannot be written ({trouble.strerror or trouble})"
        raise InnerloopError(str(path), wrong, hint=hint or _way_out(trouble)) from None


def _way_out(trouble: OSError) -> str:
    """What to do about an OSError."""
    if trouble.errno in ELSEWHERE:
        return "give another path"
    return "give write access, or another path" if trouble.errno in FORBIDDEN else "free some room"


@contextmanager
def replacing(path: Path, *, overwrite: bool = True) -> Iterator[Path]:
    """An empty draft next to `path` that is synced and replaces it at the end, or is removed if the block fails.

    Raises:
        OSError: if the draft cannot be written or moved; FileExistsError if `path` exists and `overwrite` is
            false.
    """
    draft = path.with_name(f".{uuid.uuid4().hex}.tmp")  # short enough for any file system
    os.close(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666))
    mode = stat.S_IMODE(draft.stat().st_mode)  # as for any new file; some writers change it
    try:
        yield draft
        draft.chmod(mode)
        _sync(draft, os.O_RDWR)
        move = os.replace if overwrite else _move_new
        move(draft, path)
        with suppress(OSError):  # not supported on Windows and some network file systems
            _sync(path.parent, os.O_RDONLY)
    finally:
        draft.unlink(missing_ok=True)


def _move_new(draft: Path, path: Path) -> None:
    """Move the draft, but never replace another file, even one created a moment ago."""
    try:
        os.link(draft, path)
    except FileExistsError:
        raise
    except OSError:  # the file system has no hard links
        if os.path.lexists(path):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(path)) from None
        os.replace(draft, path)


def _sync(path: Path, flags: int) -> None:
    handle = os.open(path, flags)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_text(path: Path, text: str) -> None:
    """Write a UTF-8 text file atomically. Raises InnerloopError if that is not possible."""
    with cannot_write(path), replacing(path) as draft:
        draft.write_text(text, encoding="utf-8", newline="")


def check_output_path(
    path: Path | str, *, overwrite: bool, inputs: Iterable[Path | str] = (), new_folder: bool = False
) -> Path:
    """The resolved path of an output that the user asked for, checked before any work is done.

    Raises InnerloopError if it is an input (even with `overwrite`), a folder or a special file, exists without
    `overwrite`, or is not in a writable folder (with `new_folder`, one that can be created).
    """
    path = resolved(path)
    with cannot_write(path):
        refuse_input(path, inputs)
        if path.is_dir():
            raise InnerloopError(str(path), "is a folder", hint="name a file in it")
        if os.path.lexists(path) and not path.is_file():
            raise InnerloopError(str(path), "is not a regular file", hint="give another name")
    if path.exists() and not overwrite:
        raise InnerloopError(str(path), "already exists", hint=OVERWRITE)
    with cannot_write(path, "give a path in a folder that exists and is writable"):
        folder = next(f for f in path.parents if os.path.lexists(f) or not new_folder)
        if not os.path.lexists(folder):
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
        _check_writable(folder)
    return path


def check_output_folder(path: Path | str) -> None:
    """Raise InnerloopError unless the folder exists or can be created, and is writable."""
    path = resolved(path)
    with cannot_write(path):
        _check_writable(next(folder for folder in (path, *path.parents) if os.path.lexists(folder)))


def _check_writable(folder: Path) -> None:
    """Raise OSError unless this is a folder in which files can be created."""
    if not folder.is_dir():
        raise NotADirectoryError(errno.ENOTDIR, "a part of the path is not a folder")
    with tempfile.TemporaryFile("wb", dir=folder):  # write access does not suffice in /proc, for example
        pass


def refuse_input(path: Path, inputs: Iterable[Path | str]) -> None:
    """Raise InnerloopError if the path is one of the inputs, or in one of them."""
    if path.exists() and any(path.samefile(other) for other in _files(inputs)):
        raise InnerloopError(str(path), "is an input, so it is not overwritten", hint="give another name")


def _files(inputs: Iterable[Path | str]) -> Iterator[Path]:
    """These files, and the files in these folders; paths that do not exist are skipped."""
    for path in map(Path, inputs):
        yield from (file for file in path.rglob("*") if file.is_file()) if path.is_dir() else ()
        if path.is_file():
            yield path


@contextmanager
def new_output(path: Path, *, overwrite: bool) -> Iterator[Path]:
    """A draft of an output at a path from `check_output_path`. Raises InnerloopError if it cannot be written."""
    with cannot_write(path), make_folder(path.parent):
        try:
            with replacing(path, overwrite=overwrite) as draft:
                yield draft
        except FileExistsError:
            raise InnerloopError(str(path), "already exists", hint=OVERWRITE) from None


@contextmanager
def make_folder(path: Path) -> Iterator[list[Path]]:
    """Create a folder and its parents; yields the created ones, which are removed if the block fails, if empty."""
    missing = [folder for folder in (path, *path.parents) if not os.path.lexists(folder)]
    made: list[Path] = []
    try:
        for folder in reversed(missing):
            folder.mkdir(exist_ok=True)
            made.append(folder)
        if not path.is_dir():
            raise NotADirectoryError(errno.ENOTDIR, "a part of the path is not a folder", str(path))
        yield made
    except BaseException:
        remove_folders(made)
        raise


def remove_folders(made: list[Path]) -> None:
    """Remove these folders, innermost first, if they are empty."""
    for folder in reversed(made):
        with suppress(OSError):
            folder.rmdir()
