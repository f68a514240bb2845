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
        # One item for each result to make. The garbage collector may run the finalizer in any thread, also in the
        # reader: unlike the locks of a semaphore, `SimpleQueue.put` is reentrant.
        self.room: queue.SimpleQueue[bool] = queue.SimpleQueue()
        for _ in range(waiting + 1):
            self.room.put(True)
        stopped: list[bool] = []
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
        self.room.put(True)
        return made

    def stop(self) -> None:
        """End the thread and wait for it; unused results are dropped."""
        self.end()
        self.thread.join()


def _work(
    make: Callable[[int], Made],
    ready: "queue.SimpleQueue[Made | _Failure]",
    room: "queue.SimpleQueue[bool]",
    stopped: list[bool],
) -> None:
    """The thread: a function, since a method would keep the prefetcher alive."""
    for number in itertools.count():
        room.get()
        if stopped:
            return
        try:
            ready.put(make(number))
        except BaseException as error:
            ready.put(_Failure(error))
            return


def _end(stopped: list[bool], room: "queue.SimpleQueue[bool]") -> None:
    """Wake the thread and let it return."""
    stopped.append(True)
    room.put(True)
