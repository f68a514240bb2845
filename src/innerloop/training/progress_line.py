"""The progress of a run on standard error: one line that is kept up to date, or a line every few seconds."""

import sys
import threading
import time
from contextlib import suppress
from pathlib import Path

from innerloop.io.text import printable
from innerloop.io.untrusted import JsonObject
from innerloop.training.callbacks import Callback
from innerloop.training.loop import Progress
from innerloop.training.progress_words import in_words, left, speed

QUIET = 2.0
"""Seconds of a run of which nothing is said."""

EVERY = 5.0
"""Seconds between lines where they cannot be written over: in files, and in notebooks."""

WIDTH = 160


class ProgressLine(Callback):
    """Speed, time left and the last metrics."""

    def on_start(self, folder: Path, settings: JsonObject, step: int) -> None:
        """The clock starts."""
        self.begun = self.last = time.monotonic()
        self.shown, self.seen = False, dict[str, float]()
        self.timer = threading.Timer(QUIET, self.compiling)
        self.timer.daemon = True
        with suppress(RuntimeError):  # no more threads
            self.timer.start()

    def compiling(self) -> None:
        """What takes long before the first block."""
        self.shown = True
        _say("fit: compiling", sys.stderr.isatty())

    def on_block(self, progress: Progress) -> None:
        """Say it, unless that is too early."""
        self.timer.cancel()
        self.seen |= progress.metrics  # validation scores stay until there are new ones
        now, over = time.monotonic(), sys.stderr.isatty()
        done = progress.step == progress.total and self.shown
        if now - self.begun < QUIET or (self.shown and not (over or done) and now - self.last < EVERY):
            return
        self.last, self.shown = now, True
        rest = left(progress.seconds_left) if progress.step < progress.total else "done"
        words = f"fit: {progress.step}/{progress.total} meta-steps, {rest}  "
        _say(f"{words}{speed(progress)}{in_words(self.seen)}".rstrip(), over)

    def on_end(self, error: BaseException | None) -> None:
        """Nothing is written over any more."""
        self.timer.cancel()
        if self.shown and sys.stderr.isatty():
            _say("", over=False)


def _say(line: str, over: bool) -> None:
    """Write a line, over the last one if `over`; nobody may be reading."""
    with suppress(OSError, ValueError):
        begin, end = ("\r\x1b[K", "") if over else ("", "\n")
        print(begin + printable(line, WIDTH), end=end, file=sys.stderr, flush=True)
