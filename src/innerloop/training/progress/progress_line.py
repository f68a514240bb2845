"""The progress of a run on standard error: one line that is updated in place, in a terminal or a notebook; elsewhere a
line every few seconds.
"""

import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from innerloop.io.text import printable
from innerloop.io.untrusted import JsonObject
from innerloop.training.progress.callbacks import Callback
from innerloop.training.progress.progress import Progress
from innerloop.training.progress.progress_words import in_words, left, speed

QUIET = 2.0
"""Seconds at the start of a run without output."""

WIDTH = 160
"""The largest number of characters in a line."""


class ProgressLine(Callback):
    """Shows speed, time left and the latest metrics of a run of the function `who`."""

    def __init__(self, who: str = "fit"):
        self.who = who

    def on_start(self, folder: Path, settings: JsonObject, step: int) -> None:
        """Start the clock."""
        self.begun = self.last = time.monotonic()
        self.line, self.shown, self.seen = LiveLine(), False, dict[str, float]()
        self.timer = threading.Timer(QUIET, self.compiling)
        self.timer.daemon = True
        with suppress(RuntimeError):  # no thread can be started
            self.timer.start()

    def compiling(self) -> None:
        """Explain why it takes long before the first block."""
        self.shown = True
        self.line.show(f"{self.who}: compiling")

    def on_block(self, progress: Progress) -> None:
        """Show the progress, unless the last line is too recent."""
        self.timer.cancel()
        self.seen |= progress.metrics  # validation scores stay until there are new ones
        now, done = time.monotonic(), progress.step == progress.total
        early = self.shown and not done and now - self.last < self.line.seconds
        if early or now - self.begun < QUIET:
            return
        self.last, self.shown = now, True
        rest = left(progress.step, progress.total, progress.seconds_left)
        words = f"{self.who}: {progress.step}/{progress.total} meta-steps, {rest}  "
        self.line.show(f"{words}{speed(progress)}{in_words(self.seen)}".rstrip())

    def on_end(self, error: BaseException | None) -> None:
        """Leave the last line in place."""
        self.timer.cancel()
        if self.shown:
            self.line.end()


class LiveLine:
    """A line of text that is updated in place, in a terminal or a notebook; elsewhere a line for each update."""

    def __init__(self):
        self.handle: Any = None  # IPython's handle of a display with an ID

    @property
    def seconds(self) -> float:
        """The shortest time between two updates: none in a terminal, and long enough for a browser in a notebook."""
        return 0.0 if sys.stderr.isatty() else 0.2 if in_notebook() else 5.0

    def show(self, text: str) -> None:
        """Show a line, in place of the last one if possible; errors are ignored, as nobody may be reading."""
        with suppress(OSError, ValueError):
            if in_notebook():
                self._display(printable(text, WIDTH))
            else:
                begin, end = ("\r\x1b[K", "") if sys.stderr.isatty() else ("", "\n")
                print(begin + printable(text, WIDTH), end=end, file=sys.stderr, flush=True)

    def end(self) -> None:
        """Leave the line as it is; later output goes below."""
        self.handle = None
        with suppress(OSError, ValueError):
            if sys.stderr.isatty() and not in_notebook():
                print(file=sys.stderr, flush=True)

    def _display(self, line: str) -> None:
        """Use a display with an ID, which the kernel can update: saved notebooks keep only its last state."""
        content = {"text/plain": line}
        if self.handle is None:
            self.handle = sys.modules["IPython"].display.display(content, raw=True, display_id=True)
        else:
            self.handle.update(content, raw=True)


def in_notebook() -> bool:
    """Whether this process is a notebook kernel; IPython in a terminal is not."""
    module = sys.modules.get("IPython")
    shell = None if module is None else module.get_ipython()
    return getattr(shell, "kernel", None) is not None
