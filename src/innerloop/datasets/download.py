"""Where the official files are found, and how they are downloaded when they are nowhere.

Looked for in this order: the folder that `INNERLOOP_DATA` names, the `root` argument, the cache folder
(`INNERLOOP_CACHE`, else the platform's own). What is nowhere is downloaded into the cache folder, its
official checksum checked. A file found locally may have been packed again, so no checksum of the file is
asked for there: the readers check the decoded pixels of every source.
"""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from innerloop.errors import InnerloopError
from innerloop.home import expanded

RETRIES = 2


@dataclass(frozen=True)
class Source:
    """One official file: its place below a data folder, its address and the md5 of the official archive."""

    path: str
    url: str
    md5: str


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


def data_folders(root: str | os.PathLike[str] | None) -> list[Path]:
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
    folders = data_folders(root)
    return [_find(source, folders) or _download(source) for source in sources]


def _find(source: Source, folders: list[Path]) -> Path | None:
    return next((folder / source.path for folder in folders if (folder / source.path).is_file()), None)


def _download(source: Source) -> Path:
    import pooch

    registry, urls = {source.path: f"md5:{source.md5}"}, {source.path: source.url}
    fetch: Any = pooch.HTTPDownloader(progressbar=_progress(source.path))
    try:
        keeper = pooch.create(
            cache_folder(), base_url="", registry=registry, urls=urls, retry_if_failed=RETRIES
        )
        return Path(keeper.fetch(source.path, downloader=fetch))
    except (OSError, ValueError) as trouble:  # no network, a refused address, a full disk; a wrong checksum
        raise _nowhere(source, trouble) from None  # the cause is ten screens long


def _nowhere(source: Source, trouble: Exception) -> InnerloopError:
    reason = f"{type(trouble).__name__} {str(trouble)[:80]}".strip()
    do = (
        f"get {source.url} and put it at {cache_folder() / source.path}, or set INNERLOOP_DATA to the folder "
        f"that holds {source.path}"
    )
    return InnerloopError(source.path, "is in no data folder and could not be downloaded", got=reason, do=do)


class _Progress:
    """What pooch asks of a progress bar, drawn by rich on standard error."""

    def __init__(self, name: str) -> None:
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

    def update(self, amount: int) -> None:
        """`amount` more bytes have come."""
        self.bar.start()
        self.bar.update(self.job, advance=amount, total=self.total or None)

    def reset(self) -> None:
        """Start again from nothing; pooch calls this before it completes the bar."""
        self.bar.reset(self.job)

    def close(self) -> None:
        """Leave the bar as it stands."""
        self.bar.stop()


def _progress(name: str) -> Any:
    return _Progress(name)
