"""Checks the files of checkpoints before Orbax opens any: it would follow links and block on FIFOs."""

import os
import stat
from collections.abc import Iterator
from pathlib import Path

from innerloop.errors import InnerloopError
from innerloop.io.untrusted import TEXT, refuse_link

ENTRIES, DEPTH = 100_000, 8
"""The largest number of files and folders in all checkpoints, and their largest depth."""

HINT = "take it out of the run's folder"


def check_kinds(folder: Path) -> None:
    """Raise InnerloopError for anything but folders and regular files, and for metadata files that are too large."""
    refuse_link(folder)
    for path, about in entries(folder):
        if not (stat.S_ISREG(about.st_mode) or stat.S_ISDIR(about.st_mode)):
            raise InnerloopError(
                str(path), "is not a regular file, as all files of a checkpoint are", hint=HINT
            )
        if path.name.startswith("_") and about.st_size > TEXT:
            wrong = f"is larger than the bound of {TEXT} bytes"
            raise InnerloopError(str(path), wrong, got=f"{about.st_size} bytes", hint=HINT)


def check_size(folder: Path, state: int, who: str) -> None:
    """Raise InnerloopError if the files take far more space than a state of `state` bytes needs."""
    check_kinds(folder)
    taken, bound = sum(about.st_size for _, about in entries(folder)), 2 * state + (1 << 20)
    if taken > bound:
        raise InnerloopError(
            who, f"takes more than {bound} bytes on the disk", got=taken, hint=f"it is in {folder}"
        )


def entries(folder: Path) -> Iterator[tuple[Path, os.stat_result]]:
    """Everything below a folder, without following links. Raises InnerloopError if there is too much."""
    left = [(folder, 0)]
    count = 0
    while left:
        place, depth = left.pop()
        for path in listed(place):
            count += 1
            about = status(path)
            if count > ENTRIES or depth > DEPTH:
                raise InnerloopError(
                    str(folder), "has more files or deeper folders than checkpoints have", hint=HINT
                )
            if about is None:
                continue
            yield path, about
            if stat.S_ISDIR(about.st_mode):
                left.append((path, depth + 1))


def listed(folder: Path) -> Iterator[Path]:
    """The entries of a folder; none if it is gone or cannot be read, which Orbax will report."""
    try:
        with os.scandir(folder) as found:
            yield from (Path(entry.path) for entry in found)
    except OSError:
        return


def status(path: Path) -> os.stat_result | None:
    """The status of a path; None if it has been removed meanwhile."""
    try:
        return path.lstat()
    except OSError:
        return None
