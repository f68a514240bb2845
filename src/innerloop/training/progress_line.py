"""The progress of a run on standard error: one line that is updated in place, or a line every few seconds."""

import threading
import time
from contextlib import suppress
from pathlib import Path

from innerloop.io.live_line import LiveLine
from innerloop.io.untrusted import JsonObject
from innerloop.training.callbacks import Callback
from innerloop.training.loop import Progress
from innerloop.training.progress_words import in_words, left, speed

QUIET = 2.0
"""Seconds at the start of a run without output."""


class ProgressLine(Callback):
    """Shows speed, time left and the latest metrics."""

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
        self.line.show("fit: compiling")

    def on_block(self, progress: Progress) -> None:
        """Show the progress, unless the last line is too recent."""
        self.timer.cancel()
        self.seen |= progress.metrics  # validation scores stay until there are new ones
        now, done = time.monotonic(), progress.step == progress.total
        early = self.shown and not done and now - self.last < self.line.seconds
        if early or now - self.begun < QUIET:
            return
        self.last, self.shown = now, True
        rest = left(progress.seconds_left) if progress.step < progress.total else "done"
        words = f"fit: {progress.step}/{progress.total} meta-steps, {rest}  "
        self.line.show(f"{words}{speed(progress)}{in_words(self.seen)}".rstrip())

    def on_end(self, error: BaseException | None) -> None:
        """Leave the last line in place."""
        self.timer.cancel()
        if self.shown:
            self.line.end()
