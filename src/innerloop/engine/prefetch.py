"""A thread that makes things ahead of their use."""

import queue
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any, NamedTuple


class _Failure(NamedTuple):
    """What the maker raised, on its way to the user."""

    error: BaseException


class ReadAhead:
    """`next()` gives `make(0)`, `make(1)`, ... while a thread makes up to `waiting` of them ahead.

    What `make` raises is raised by `next()` in its turn, and again by every later one. `stop()` ends the thread and
    waits for it.
    """

    def __init__(self, make: Callable[[int], Any], waiting: int):
        self.make, self.stopped = make, threading.Event()
        self.ready: queue.Queue[Any] = queue.Queue(maxsize=waiting)
        # A daemon: a program that dies with an error must not hang on its reader.
        self.thread = threading.Thread(target=self.work, name="innerloop-read-ahead", daemon=True)
        self.thread.start()

    def work(self) -> None:
        """Make one thing after the other until stopped or failed."""
        number = 0
        while not self.stopped.is_set():
            try:
                made = self.make(number)
            except BaseException as error:
                made = _Failure(error)
            self.hand_over(made)
            if isinstance(made, _Failure):
                return
            number += 1

    def hand_over(self, made: Any) -> None:
        """Wait for room, unless stopped meanwhile."""
        waiting = True
        while waiting and not self.stopped.is_set():
            with suppress(queue.Full):
                self.ready.put(made, timeout=0.05)
                waiting = False

    def next(self) -> Any:
        """The next thing; waits for it if it is not made yet."""
        made = self.ready.get()
        if isinstance(made, _Failure):
            self.ready.put(made)
            raise made.error
        return made

    def stop(self) -> None:
        """End the thread; what it had made is dropped."""
        self.stopped.set()
        self.thread.join()
