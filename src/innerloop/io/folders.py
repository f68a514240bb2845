"""Folders that we write to: inside, no link is followed, and files that we did not write are kept as they are."""

import json
import os
import re
import stat
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TextIO

from innerloop.errors import InnerloopError
from innerloop.io.files import (
    OVERWRITE,
    cannot_write,
    make_folder,
    refuse_input,
    remove_folders,
    replacing,
    resolved,
)
from innerloop.io.untrusted import read_object, sha256_of

RECORD = ".innerloop.json"
"""The file in an output folder that records what was written: sha256 by name."""

SHA256 = re.compile(r"[0-9a-f]{64}")

_SAFE = sum(getattr(os, name, 0) for name in ("O_NOFOLLOW", "O_NONBLOCK", "O_CLOEXEC", "O_BINARY"))
"""Flags not to follow links, and not to block when opening a pipe."""

_LARGEST = 1 << 30
"""The size in bytes of the largest output that is compared before it is replaced."""


class OwnFolder:
    """A folder that we write to: no link inside is followed, and only what was written through it can be undone."""

    def __init__(self, path: Path | str):
        self.path = resolved(path)
        self.made: list[Path] = []
        self.written: dict[Path, tuple[int, ...]] = {}

    def path_of(self, name: str) -> Path:
        """The path of `name` (parts joined by `/`). Raises InnerloopError if a part of it is a link."""
        place = self.path
        for part in name.split("/"):
            place = place / part
            if place.is_symlink():
                hint = "replace it with what it points to; links are not followed here"
                raise InnerloopError(
                    str(self.path), f"`{name}` leads through a link", got=str(place), hint=hint
                )
        return place

    def make(self, name: str = "") -> Path:
        """Create the folder, or one inside, if it does not exist. Raises InnerloopError if that is not possible."""
        path = self.path_of(name) if name else self.path
        with cannot_write(path), make_folder(path) as made:
            self.made += made
        return path

    @contextmanager
    def replacing(self, name: str) -> Iterator[Path]:
        """A draft that replaces `name`. Raises InnerloopError if it cannot be written."""
        path = self.path_of(name)
        with cannot_write(path), replacing(path) as draft:
            yield draft
            # Before it is moved, so that an interrupt just after that is undone too.
            self.mark_written(path, draft.lstat())

    def write(self, name: str, text: str) -> None:
        """Write a text file atomically."""
        with self.replacing(name) as draft:
            draft.write_text(text, encoding="utf-8", newline="")

    def remove(self, name: str) -> None:
        """Remove a file, if it exists. Raises InnerloopError if that is not possible."""
        path = self.path_of(name)
        with cannot_write(path):
            path.unlink(missing_ok=True)

    @contextmanager
    def appending(self, name: str) -> Iterator[TextIO]:
        """A text file opened for appending. Raises InnerloopError for a link, or if it is not a regular file."""
        path = self.path_of(name)
        with cannot_write(path, "free some room, then `resume`"):
            handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | _SAFE, 0o666)
            with open(handle, "w", encoding="utf-8", newline="") as file:
                if not stat.S_ISREG(os.fstat(handle).st_mode):
                    raise InnerloopError(str(path), "is not a regular file")
                yield file
                file.flush()
                self.mark_written(path, os.fstat(handle))

    def mark_written(self, path: Path, about: os.stat_result | None = None) -> None:
        """Record this file as ours, as it is now (or as in `about`)."""
        with suppress(OSError):
            self.written[path] = _identity(about or path.lstat())

    def undo(self) -> None:
        """Remove the files that were written here and not changed since, and the created folders if then empty."""
        for path, identity in list(self.written.items()):  # another thread may still write
            with suppress(OSError):
                if _identity(path.lstat()) == identity:
                    path.unlink()
        remove_folders(self.made)


def _identity(about: os.stat_result) -> tuple[int, ...]:
    return about.st_dev, about.st_ino, about.st_size, about.st_mtime_ns


class OutputFolder(OwnFolder):
    """An output folder that may be written again: files that have changed since, or are not ours, are kept."""

    def __init__(self, path: Path | str, *, overwrite: bool = False, inputs: Iterable[Path | str] = ()):
        super().__init__(path)
        self.overwrite, self.inputs = overwrite, list(inputs)

    def check(self, name: str) -> None:
        """Raise InnerloopError if `name` is an input, or exists and is not a file as we wrote it."""
        path, record = self.path_of(name), self._record()
        if not os.path.lexists(path):
            return
        if self.overwrite:
            refuse_input(path, self.inputs)
        elif not path.is_file() or record.get(name) != sha256_of(path, _LARGEST, follow=False):
            raise _foreign(path)

    @contextmanager
    def replacing(self, name: str) -> Iterator[Path]:
        """As in `OwnFolder`; also raises InnerloopError as `check` does."""
        self.check(name)
        with super().replacing(name) as draft:
            yield draft
            written = sha256_of(draft, _LARGEST)
        self._keep(self._record() | {name: written})

    def discard(self, name: str) -> None:
        """Remove `name` if it is as we wrote it; otherwise leave it alone."""
        path, record = self.path_of(name), self._record()
        if name in record and path.is_file() and sha256_of(path, _LARGEST, follow=False) == record[name]:
            with cannot_write(path):
                path.unlink()
            self._keep({other: written for other, written in record.items() if other != name})

    def _keep(self, record: dict[str, object]) -> None:
        """Write the record of what was written."""
        with super().replacing(RECORD) as draft:
            draft.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")

    def _record(self) -> dict[str, object]:
        """Read the record of what was written. Raises InnerloopError for a foreign file, unless it may be replaced."""
        path = self.path_of(RECORD)
        if not os.path.lexists(path):
            return {}
        with suppress(InnerloopError):
            record = read_object(path, follow=False)
            if all(SHA256.fullmatch(str(value)) for value in record.values()):
                return record
        if self.overwrite:
            return {}
        raise _foreign(path)


def _foreign(path: Path) -> InnerloopError:
    return InnerloopError(str(path), "was not written by innerloop, or was changed since", hint=OVERWRITE)
