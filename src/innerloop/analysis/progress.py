"""Progress callbacks for long measurements."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

OnProgress = Callable[[int, int], None]
"""`on_progress(done, total)`, called with the number of tasks done so far and their total."""

ProgressFor = Callable[[str], AbstractContextManager[OnProgress]]
"""`progress_for(title)`: a context manager that yields the callback for one measurement."""


def no_progress(done: int, total: int) -> None:
    """Report nothing."""


def no_progress_for(title: str) -> AbstractContextManager[OnProgress]:
    """Report nothing for any measurement."""
    return nullcontext(no_progress)
