"""Where the official files are found, and how they are downloaded when they are nowhere.

Looked for in this order: the folder that `INNERLOOP_DATA` names, the `root` argument, the cache folder
(`INNERLOOP_CACHE`, else the platform's own). What is nowhere is downloaded into the cache folder, its
official checksum checked. A file found locally may have been packed again, so no checksum of the file is
asked for there: the readers check the decoded pixels of every source.
"""

import os
import threading
import time
from concurrent.futures import Future, wait
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from innerloop.errors import InnerloopError
from innerloop.io.home import expanded

RETRIES = 2
STALL = 60.0
"""Seconds in which at least `CHUNK` bytes must come."""

CHUNK = 1 << 14
SLOWEST = 20_000
"""Bytes a second on the whole, below which a download is given up."""


@dataclass(frozen=True)
class Source:
    """One official file: its place below a data folder, its address, the md5 of the official archive, and how many
    bytes are taken at most."""

    path: str
    url: str
    md5: str
    size: int = 1 << 28


def cache_folder() -> Path:
    """The cache folder: `INNERLOOP_CACHE` if set, else the platform's cache folder for innerloop."""
    if folder := os.environ.get("INNERLOOP_CACHE"):
        return expanded(folder, "INNERLOOP_CACHE")
    import pooch

    try:
        folder = Path(pooch.os_cache("innerloop"))
    except RuntimeError:  # this user has no home folder
        folder = Path("~")
    if not folder.is_absolute():  # older versions say so in this way
        do = "set INNERLOOP_CACHE to a folder that can be written"
        raise InnerloopError("cache", "there is no home folder to keep it in", do=do)
    return folder


def _data_folders(root: str | os.PathLike[str] | None) -> list[Path]:
    """The folders in which official files are looked for, first to last.

    Raises:
        InnerloopError: `INNERLOOP_DATA` or `root` names no folder.
    """
    named = [("INNERLOOP_DATA", os.environ.get("INNERLOOP_DATA")), ("root", root)]
    folders = [(who, expanded(folder, who)) for who, folder in named if folder]
    for who, folder in folders:
        if not folder.is_dir():
            raise InnerloopError(who, "must name an existing folder", got=repr(str(folder)))
    return [folder for _, folder in folders] + [cache_folder()]


def locate(*sources: Source, root: str | os.PathLike[str] | None = None) -> list[Path]:
    """Paths of these files, downloaded if they are in none of the folders.

    Raises:
        InnerloopError: a file is nowhere and cannot be downloaded; the message says what to put where.
    """
    folders = _data_folders(root)
    return [_find(source, folders) or _download(source) for source in sources]


def _find(source: Source, folders: list[Path]) -> Path | None:
    return next((folder / source.path for folder in folders if (folder / source.path).is_file()), None)


def _download(source: Source) -> Path:
    import pooch

    registry, urls = {source.path: f"md5:{source.md5}"}, {source.path: source.url}
    progress = _progress(source.path, source.size)
    fetch: Any = pooch.HTTPDownloader(progressbar=progress, chunk_size=CHUNK, timeout=STALL / 2)
    try:
        keeper = pooch.create(
            cache_folder(), base_url="", registry=registry, urls=urls, retry_if_failed=RETRIES
        )
        return Path(keeper.fetch(source.path, downloader=_in_time(fetch, progress)))
    except (OSError, ValueError) as trouble:  # no network, a refused address, a full disk; a wrong checksum
        raise _nowhere(source, trouble) from None  # the cause is ten screens long


def _in_time(fetch: Any, progress: Any) -> Any:
    """`fetch` in a thread of its own, left behind where it does not come on: a server may send a byte now and then."""

    def fetched(url: str, output_file: str, keeper: Any) -> None:
        ended = Future[None]()
        threading.Thread(target=_run, args=(ended, fetch, url, output_file, keeper), daemon=True).start()
        progress.seen = 0
        last, seen = time.monotonic() + STALL + progress.limit / SLOWEST, -1
        while not _is_done(ended):
            if progress.seen == seen or time.monotonic() > last:
                progress.limit = -1  # ends the thread with its next bytes
                raise TimeoutError(f"the server sent {progress.seen} bytes and no more in time")
            seen = progress.seen
        ended.result()

    return fetched


def _run(ended: "Future[None]", fetch: Any, *arguments: Any) -> None:
    try:
        ended.set_result(fetch(*arguments))
    except BaseException as trouble:
        ended.set_exception(trouble)


def _is_done(ended: "Future[None]") -> bool:
    """Whether it is, after at most `STALL` seconds."""
    return bool(wait([ended], STALL).done)


def _nowhere(source: Source, trouble: Exception) -> InnerloopError:
    reason = f"{type(trouble).__name__} {str(trouble)[:80]}".strip()
    do = (
        f"get {source.url} and put it at {cache_folder() / source.path}, or set INNERLOOP_DATA to the folder "
        f"that holds {source.path}"
    )
    return InnerloopError(source.path, "is in no data folder and could not be downloaded", got=reason, do=do)


class _Progress:
    """What pooch asks of a progress bar, drawn by rich on standard error; and it stops a body that does not end."""

    def __init__(self, name: str, limit: int) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

        columns = (
            TextColumn(f"downloading {name}", markup=False),
            BarColumn(),
            DownloadColumn(),
            TransferSpeedColumn(),
        )
        self.bar = Progress(*columns, console=Console(stderr=True))
        self.job = self.bar.add_task(name, total=None)
        self.total: float | None = None
        self.seen, self.limit = 0, limit

    def update(self, amount: int) -> None:
        """`amount` more bytes have come (pooch counts the last chunk as a whole one)."""
        self.seen += amount
        if max(self.seen - CHUNK, self.total or 0) > self.limit:
            raise OSError(f"the server sends more than {self.limit} bytes")
        self.bar.start()
        self.bar.update(self.job, advance=amount, total=self.total or None)

    def reset(self) -> None:
        """Start again from nothing; pooch calls this before it completes the bar."""
        self.seen = 0
        self.bar.reset(self.job)

    def close(self) -> None:
        """Leave the bar as it stands."""
        self.bar.stop()


def _progress(name: str, limit: int) -> Any:
    return _Progress(name, limit)
