"""What a reader may not do while it reads hostile bytes, watched by Python's own audit events.

Writing outside the reader's folder, starting a program, and finding a class for a pickle are noted; a reader that takes
longer than `SECONDS` is interrupted.
"""

import os
import signal
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

SECONDS = 20.0  # of processor time
NEVER = (
    "os.system",
    "os.exec",
    "os.posix_spawn",
    "os.fork",
    "subprocess.Popen",
    "pickle.find_class",
    "marshal.loads",
)
WRITES = (
    "os.remove",
    "os.rename",
    "os.mkdir",
    "os.rmdir",
    "os.link",
    "os.symlink",
    "os.chmod",
    "os.truncate",
)
LINKS = ("os.remove", "os.rename", "os.rmdir", "os.link", "os.symlink")
MAKES = ("os.link", "os.symlink")
"""These write at their second argument."""
ACCESS = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC


class TooLong(BaseException):
    """A reader that does not come back."""


class Guard:
    """Notes what is forbidden while `watching`; one hook for the whole process, since hooks cannot be taken off."""

    def __init__(self) -> None:
        self.folder: str | None = None
        self.seen: list[str] = []
        self.imports = 0
        sys.addaudithook(self.hook)

    def hook(self, event: str, arguments: tuple[Any, ...]) -> None:
        if self.folder is None:
            return
        if event in NEVER and not self.importing():
            self.seen.append(event)
        elif event == "open" and isinstance(arguments[2], int) and arguments[2] & ACCESS:
            self.note(event, arguments[0])
        elif event in WRITES:
            self.note(event, arguments[event in MAKES])
            if event == "os.rename":
                self.note(event, arguments[1])

    def importing(self) -> bool:
        """Modules are unmarshalled when they are imported: that is not the reader's doing."""
        frame = sys._getframe(2)
        while frame is not None:
            if "importlib" in frame.f_code.co_filename:
                return True
            frame = frame.f_back
        return False

    def note(self, event: str, path: Any) -> None:
        if isinstance(path, int) or self.folder is None or self.importing():
            return
        name = os.path.abspath(os.fsdecode(path))
        if event in LINKS:  # what is done to a link is not done to what it names
            name = os.path.join(os.path.realpath(os.path.dirname(name)), os.path.basename(name))
        else:
            name = os.path.realpath(name)
        if not name.startswith(self.folder) and name != os.devnull:
            self.seen.append(f"{event} {name}")

    @contextmanager
    def watching(self, folder: Path) -> Iterator[list[str]]:
        """Gives the list of what was forbidden and done nevertheless."""
        self.seen, self.folder = [], os.path.realpath(folder)
        try:
            with in_time():
                yield self.seen
        finally:
            self.folder = None


@contextmanager
def in_time() -> Iterator[None]:
    """Raise TooLong in the block after `SECONDS`."""

    def late(number: int, frame: Any) -> None:
        raise TooLong

    before = signal.signal(signal.SIGPROF, late)
    signal.setitimer(signal.ITIMER_PROF, SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)


@contextmanager
def sandbox() -> Iterator[Path]:
    """A new folder to work in."""
    before = os.getcwd()
    with tempfile.TemporaryDirectory(prefix="innerloop-fuzz-") as folder:
        os.chdir(folder)
        try:
            yield Path(folder)
        finally:
            os.chdir(before)
