"""Callbacks by which long measurements report how far they are."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

OnProgress = Callable[[int, int], None]
"""`on_progress(done, total)`, called with the number of tasks done so far."""

ProgressFor = Callable[[str], AbstractContextManager[OnProgress]]
"""`progress_for(title)`: the callback of one measurement, for the length of a `with` block."""


def no_progress(done: int, total: int) -> None:
    """Report nothing."""


def no_progress_for(title: str) -> AbstractContextManager[OnProgress]:
    """Report nothing for any measurement."""
    return nullcontext(no_progress)
