"""Signals reach a thread at once: Python's own handlers wait for the main thread.

Python runs signal handlers in the main thread, between two bytecode instructions. While XLA compiles or computes, the
next one may be minutes away, and an exception raised by a handler is lost where the interpreter ignores exceptions.
So the signal number is also sent through a socket to a thread (`signal.set_wakeup_fd`), which acts if the main thread
does not.
"""

import os
import signal
import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from types import FrameType
from typing import Any

HANGUP: int | None = getattr(signal, "SIGHUP", None)  # Windows has none
NUMBERS = (signal.SIGINT, signal.SIGTERM, *([] if HANGUP is None else [HANGUP]))


def handle_all(handler: Callable[[int, FrameType | None], object]) -> dict[int, Any]:
    """Install a handler for all signals; SIGHUP stays ignored if it was, for `nohup`.

    Handlers that were not installed from Python are kept, since Python cannot restore them.

    Returns:
        The previous handlers, by signal number.
    """
    before = {number: signal.getsignal(number) for number in NUMBERS}
    kept = lambda number: before[number] is None or (number == HANGUP and before[number] == signal.SIG_IGN)
    return {number: signal.signal(number, handler) for number in NUMBERS if not kept(number)}


class Listener:
    """A thread that receives signals at once, whatever the main thread does."""

    def __init__(self, on_signal: Callable[[int], None]):
        self.on_signal = on_signal
        self.receiver, self.sender = socket.socketpair()
        self.sender.setblocking(False)
        self.before = signal.set_wakeup_fd(self.sender.fileno(), warn_on_full_buffer=False)
        threading.Thread(target=self.work, name="innerloop-signals", daemon=True).start()

    def work(self) -> None:
        """Pass on signal numbers until closed, also to an event loop that listened before."""
        with self.receiver:
            while numbers := self.receiver.recv(64):
                for number in numbers:
                    if number in NUMBERS:
                        self.on_signal(number)
                if self.before >= 0:
                    with suppress(OSError):
                        os.write(self.before, numbers)

    def close(self) -> None:
        """Stop listening."""
        signal.set_wakeup_fd(self.before)
        self.sender.close()
