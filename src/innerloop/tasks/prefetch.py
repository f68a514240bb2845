"""Prefetching in a background thread."""

import itertools
import queue
import threading
import weakref
from collections.abc import Callable
from typing import Generic, NamedTuple, TypeVar

Made = TypeVar("Made")


class _Failure(NamedTuple):
    """An exception from the producer, on its way to the consumer."""

    error: BaseException


class Prefetcher(Generic[Made]):
    """`next()` returns `make(0)`, `make(1)`, ... while a thread computes up to `waiting` + 1 of them in advance.

    An exception in `make` is raised by the `next()` that would have returned the result, and by every later one.
    The thread ends after `stop`, or when the prefetcher is garbage collected: `make` must not refer to it.
    """

    def __init__(self, make: Callable[[int], Made], waiting: int):
        self.ready: queue.SimpleQueue[Made | _Failure] = queue.SimpleQueue()
        self.room = threading.Semaphore(waiting + 1)
        stopped = threading.Event()
        self.end = weakref.finalize(self, _end, stopped, self.room)
        # A daemon: a program that fails with an error must not hang on its reader thread.
        self.thread = threading.Thread(
            target=_work,
            args=(make, self.ready, self.room, stopped),
            name="innerloop-read-ahead",
            daemon=True,
        )
        self.thread.start()

    def next(self) -> Made:
        """The next result; blocks until it is available."""
        made = self.ready.get()
        if isinstance(made, _Failure):
            self.ready.put(made)
            raise made.error
        self.room.release()
        return made

    def stop(self) -> None:
        """End the thread and wait for it; unused results are dropped."""
        self.end()
        self.thread.join()


def _work(
    make: Callable[[int], Made],
    ready: "queue.SimpleQueue[Made | _Failure]",
    room: threading.Semaphore,
    stopped: threading.Event,
) -> None:
    """The thread: a function, since a method would keep the prefetcher alive."""
    for number in itertools.count():
        room.acquire()
        if stopped.is_set():
            return
        try:
            ready.put(make(number))
        except BaseException as error:
            ready.put(_Failure(error))
            return


def _end(stopped: threading.Event, room: threading.Semaphore) -> None:
    """Wake the thread and let it return."""
    stopped.set()
    room.release()
