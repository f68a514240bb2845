"""Progress display: a bar in a terminal, a plain line every few seconds elsewhere."""

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from rich.console import Console

from innerloop.io.text import printable
from innerloop.training.interruption.signals import Stopped, reporting_stop
from innerloop.training.progress.callbacks import Callback
from innerloop.training.progress.progress import Progress
from innerloop.training.progress.progress_words import in_words, left, speed

EVERY = 5.0
"""Seconds between plain lines."""


class Display(Callback):
    """Shows the messages and the progress of a run."""

    def __init__(self, console: Console, tell: "ReportProgress"):
        self.console, self.tell, self.seen = console, tell, dict[str, float]()

    def on_message(self, text: str) -> None:
        """Print the message."""
        self.console.print(text)

    def on_block(self, progress: Progress) -> None:
        """Show the progress."""
        self.seen |= progress.metrics  # validation scores stay until there are new ones
        words = f"{speed(progress)}{in_words(self.seen)}"
        self.tell(progress.step, progress.total, progress.seconds_left, words)


@contextmanager
def training(console: Console, title: str) -> Iterator[Display]:
    """The callback that shows a run, for the duration of a `with` block."""
    with _lines_or_bar(console, title, "meta-steps") as tell:
        yield Display(console, tell)


def train_until_stopped(
    console: Console, title: str, tell: Callable[[Stopped], None], work: Callable[[Callback], object]
) -> int:
    """Train with a progress display.

    Args:
        console: where progress is shown.
        title: the title of the progress bar.
        tell: called if a signal stopped the training.
        work: trains; it takes the callback that shows the progress.

    Returns:
        The exit code: 0, or 128 plus the number of the signal.
    """
    try:
        with training(console, title) as display, reporting_stop(tell):
            work(display)
    except Stopped as stopped:
        with suppress(OSError):  # the terminal may be gone
            tell(stopped)
        return 128 + stopped.signal_number
    return 0


@contextmanager
def counting(console: Console, title: str) -> Iterator[Callable[[int, int], None]]:
    """A progress callback `(done, total)` for a measurement, for the duration of a `with` block."""
    with _lines_or_bar(console, title, "tasks") as tell:
        first: list[tuple[float, int]] = []  # the time before includes compilation

        def on_progress(done: int, total: int) -> None:
            first[:] = first or [(time.monotonic(), done)]
            (begun, earlier), seconds_left = first[0], math.nan
            if done > earlier:
                seconds_left = (time.monotonic() - begun) / (done - earlier) * (total - done)
            tell(done, total, seconds_left, "")

        yield on_progress


ReportProgress = Callable[[int, int, float, str], None]
"""`tell(done, total, seconds_left, more)`."""


@contextmanager
def _lines_or_bar(console: Console, title: str, unit: str) -> Iterator[ReportProgress]:
    """A progress bar, or plain lines."""
    if not console.is_terminal:
        yield _plain_lines(console, title, unit)
        return
    from rich.progress import BarColumn, MofNCompleteColumn, SpinnerColumn, TextColumn
    from rich.progress import Progress as Bar

    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=None),
        MofNCompleteColumn(),
        TextColumn("{task.fields[more]}", markup=False),
    )
    with Bar(*columns, console=console, expand=True) as bar:
        job = bar.add_task(printable(title), total=None, more="preparing")

        def tell(done: int, total: int, seconds_left: float, more: str) -> None:
            more = f"{left(done, total, seconds_left)}  {more}"
            bar.update(job, completed=done, total=total, more=more)

        yield tell


def _plain_lines(console: Console, title: str, unit: str) -> ReportProgress:
    """One line every `EVERY` seconds, and always the last line."""
    last = time.monotonic()
    console.print(f"{title}: preparing")

    def tell(done: int, total: int, seconds_left: float, more: str) -> None:
        nonlocal last
        if done < total and time.monotonic() - last < EVERY:
            return
        last = time.monotonic()
        rest = left(done, total, seconds_left)
        console.print(f"{title}: {done}/{total} {unit}, {rest}  {more}".rstrip())

    return tell
