"""Prefetching in a background thread."""

import queue
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Generic, NamedTuple, TypeVar

Made = TypeVar("Made")


class _Failure(NamedTuple):
    """An exception from the producer, on its way to the consumer."""

    error: BaseException


class Prefetcher(Generic[Made]):
    """`next()` returns `make(0)`, `make(1)`, ... while a thread computes up to `waiting` of them in advance.

    An exception in `make` is raised by the `next()` that would have returned the result, and by every later one.
    """

    def __init__(self, make: Callable[[int], Made], waiting: int):
        self.make, self.stopped = make, threading.Event()
        self.ready: queue.Queue[Made | _Failure] = queue.Queue(maxsize=waiting)
        # A daemon: a program that fails with an error must not hang on its reader thread.
        self.thread = threading.Thread(target=self._work, name="innerloop-read-ahead", daemon=True)
        self.thread.start()

    def _work(self) -> None:
        number = 0
        while not self.stopped.is_set():
            try:
                made = self.make(number)
            except BaseException as error:
                made = _Failure(error)
            self._put(made)
            if isinstance(made, _Failure):
                return
            number += 1

    def _put(self, made: Made | _Failure) -> None:
        """Wait for room in the queue, unless stopped meanwhile."""
        waiting = True
        while waiting and not self.stopped.is_set():
            with suppress(queue.Full):
                self.ready.put(made, timeout=0.05)
                waiting = False

    def next(self) -> Made:
        """The next result; blocks until it is available."""
        made = self.ready.get()
        if isinstance(made, _Failure):
            self.ready.put(made)
            raise made.error
        return made

    def stop(self) -> None:
        """End the thread and wait for it; unused results are dropped."""
        self.stopped.set()
        self.thread.join()
