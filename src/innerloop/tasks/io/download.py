"""Finding the official files, and downloading those that are not found.

The search order is: the folder named by `INNERLOOP_DATA`, the `root` argument, the cache folder
(`INNERLOOP_CACHE`, otherwise the platform's default). A file that is in none of them is downloaded into the cache
folder, and its official checksum is verified. A local file may have been repacked, so its checksum is not
verified: the readers check the decoded pixels of every source.
"""

import os
import threading
import time
from concurrent.futures import Future, wait
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from innerloop.errors import InnerloopError
from innerloop.io.files import AnyPath, expanded

RETRIES = 2
STALL = 60.0
"""Seconds within which at least `CHUNK` bytes must arrive."""

CHUNK = 1 << 14
SLOWEST = 20_000
"""Average bytes per second below which a download is given up."""


@dataclass(frozen=True)
class Source:
    """One official file: its path in a data folder, its URL, the md5 of the official archive, and its largest accepted
    size in bytes."""

    path: str
    url: str
    md5: str
    size: int = 1 << 28


def cache_folder() -> Path:
    """The cache folder: `INNERLOOP_CACHE` if set, otherwise the platform's cache folder for innerloop."""
    if folder := os.environ.get("INNERLOOP_CACHE"):
        return expanded(folder, "INNERLOOP_CACHE")
    import pooch

    try:
        folder = Path(pooch.os_cache("innerloop"))
    except RuntimeError:  # this user has no home folder
        folder = Path("~")
    if not folder.is_absolute():  # what older versions return without a home folder
        hint = "set INNERLOOP_CACHE to a writable folder"
        raise InnerloopError("cache", "there is no home folder to keep it in", hint=hint)
    return folder


def _data_folders(root: AnyPath | None) -> list[Path]:
    """The folders to search for official files, in order.

    Raises:
        InnerloopError: if `INNERLOOP_DATA` or `root` is not an existing folder.
    """
    named = [("INNERLOOP_DATA", os.environ.get("INNERLOOP_DATA")), ("root", root)]
    folders = [(who, expanded(folder, who)) for who, folder in named if folder]
    for who, folder in folders:
        if not os.path.isdir(folder):  # `Path.is_dir` raises PermissionError below a private folder
            raise InnerloopError(who, "must name an existing folder", got=repr(str(folder)))
    return [folder for _, folder in folders] + [cache_folder()]


def locate(*sources: Source, root: AnyPath | None = None) -> list[Path]:
    """Paths of these files, which are downloaded if they are in none of the folders.

    Raises:
        InnerloopError: if a file is not found and cannot be downloaded; the message says what to put where.
    """
    folders = _data_folders(root)
    found = lambda path: next((f / path for f in folders if os.path.isfile(f / path)), None)
    return [found(source.path) or _download(source, folders) for source in sources]


def _download(source: Source, folders: list[Path]) -> Path:
    import pooch

    registry, urls = {source.path: f"md5:{source.md5}"}, {source.path: source.url}
    progress: Any = _Progress(source.path, source.size)
    fetch: Any = pooch.HTTPDownloader(progressbar=progress, chunk_size=CHUNK, timeout=STALL / 2)
    try:
        keeper = pooch.create(
            cache_folder(), base_url="", registry=registry, urls=urls, retry_if_failed=RETRIES
        )
        return Path(keeper.fetch(source.path, downloader=_in_time(fetch, progress)))
    except (OSError, ValueError) as trouble:  # no network, a refused address, a full disk; a wrong checksum
        raise _nowhere(source, folders, trouble) from None  # the traceback of the cause is very long
    finally:
        # This ends an abandoned thread when its next bytes arrive, so that it shows no progress again.
        progress.limit = -1
        progress.close()


def _in_time(fetch: Any, progress: Any) -> Any:
    """Run `fetch` in a thread that is abandoned if it stalls: a server may send just a byte now and then."""

    def fetched(url: str, output_file: str, keeper: Any) -> None:
        ended = Future[None]()

        def work() -> None:
            try:
                ended.set_result(fetch(url, output_file, keeper))
            except BaseException as trouble:
                ended.set_exception(trouble)

        threading.Thread(target=work, daemon=True).start()
        progress.seen = 0
        last, seen = time.monotonic() + STALL + progress.limit / SLOWEST, -1
        while not wait([ended], STALL).done:
            if progress.seen == seen or time.monotonic() > last:
                progress.limit = -1  # ends the thread when its next bytes arrive
                raise TimeoutError(f"the server sent {progress.seen} bytes and then was too slow")
            seen = progress.seen
        ended.result()

    return fetched


def _nowhere(source: Source, folders: list[Path], trouble: Exception) -> InnerloopError:
    reason = f"{type(trouble).__name__} {str(trouble)[:80]}".strip()
    hint = (
        f"download {source.url} to {cache_folder() / source.path}, or set INNERLOOP_DATA to the folder "
        f"that contains {source.path}"
    )
    wrong = f"is not in {' or '.join(map(str, folders))}, and could not be downloaded"
    return InnerloopError(source.path, wrong, got=reason, hint=hint)


class _Progress:
    """The progress bar interface of pooch, drawn by rich on standard error; it also stops endless responses."""

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
        """`amount` more bytes have arrived (pooch counts the last chunk as a full one)."""
        self.seen += amount
        if max(self.seen - CHUNK, self.total or 0) > self.limit:
            raise OSError(f"the server sends more than {self.limit} bytes")
        self.bar.start()
        self.bar.update(self.job, advance=amount, total=self.total or None)

    def reset(self) -> None:
        """Restart from zero; pooch calls this before it completes the bar."""
        self.seen = 0
        self.bar.reset(self.job)

    def close(self) -> None:
        """Leave the bar as it is, and give the terminal back."""
        if self.bar.live.is_started:  # otherwise rich would print an empty line
            self.bar.stop()
