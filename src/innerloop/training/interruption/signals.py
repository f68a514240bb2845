"""Signals: the first one leaves time to save, a second one ends the command at once."""

import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import Any

from innerloop.training.interruption.process_end import exit_now, print_error, restore_terminal, with_timeout
from innerloop.training.interruption.signal_listener import HANGUP, Listener, handle_all

GRACE_SECONDS = 2.5
"""Seconds that the main thread is given to end by itself."""

REPEAT_SECONDS = 0.3
"""Seconds within which a repeated signal counts once: a launcher may forward what the terminal already sent to all."""


class Stopped(Exception):
    """The run was asked to stop, and has saved its state."""

    def __init__(self, signal_number: int, step: int, folder: Path):
        self.signal_number, self.step, self.folder = signal_number, step, folder
        super().__init__(f"stopped at meta-step {step}; state saved; continue with `resume`")


class Interrupted(KeyboardInterrupt):
    """A signal was received when there was nothing to save."""

    def __init__(self, signal_number: int):
        self.signal_number = signal_number
        super().__init__("interrupted.")


class Guard:
    """Handles SIGINT, SIGTERM and SIGHUP.

    Within `saving`, the first signal is noted in `number` for the main thread to see; after `GRACE_SECONDS` seconds, a
    thread calls `rescue` to save instead. Elsewhere, a signal raises Interrupted in the main thread if the process is
    `owns_process` (the command), and otherwise does what it did before. Only our own process is ever ended: by a second
    signal, or if the main thread does not end in time.
    """

    def __init__(self, *, owns_process: bool = False):
        self.owns_process, self.is_saving = owns_process, False
        self.raised: Interrupted | None = None
        """Kept alive with the frames in its traceback: XLA's threads may still use their objects."""
        self.number = 0
        """The first signal that was received; 0 for none."""
        self.received_at: float | None = None
        self.phase = 0
        self.rescue: Callable[[int], Exception] | None = None
        self.undo: Callable[[], object] = lambda: None
        """Removes what a run wrote, if the process is ended before the run has anything to save."""
        self.outcome: BaseException | None = None
        self.report_stopped: Callable[[Stopped], object] = print_error
        self.lock = threading.Lock()
        """A lock that the main thread holds within `saving`, except within `computing`."""
        self.previous_handlers: dict[int, Any] = {}
        self.listener: Listener | None = None

    def install(self) -> None:
        """Start handling signals; in the main thread only, as Python requires."""
        if threading.current_thread() is not threading.main_thread():
            return
        self.listener = Listener(self.on_signal)
        self.previous_handlers = handle_all(self.handle)

    def remove(self) -> None:
        """Restore the previous handlers."""
        self.phase += 1
        for number, handler in self.previous_handlers.items():
            signal.signal(number, handler)
        self.previous_handlers = {}
        if self.listener is not None:
            self.listener.close()
            self.listener = None

    def handle(self, number: int, frame: FrameType | None) -> None:
        """The signal handler; Python calls it in the main thread."""
        self.number = self.number or number
        if not self.owns_process:
            signal.signal(number, self.previous_handlers[number])  # a second signal gets the previous handler
            if not self.is_saving:
                signal.raise_signal(number)
        elif not (self.is_saving or self.raised):
            self.raised = Interrupted(number)
            if importing(frame):
                print_error(self.raised)
                exit_now(128 + number)
            raise self.raised

    def on_signal(self, number: int) -> None:
        """Called by the listener, in its thread."""
        if self.received_at is None:
            self.received_at = time.monotonic()
            self.number = self.number or number
            self.next_phase()
        # A shell sends a second SIGHUP after the terminal's own.
        elif self.owns_process and number != HANGUP and time.monotonic() - self.received_at > REPEAT_SECONDS:
            with_timeout(restore_terminal)
            os._exit(128 + number)

    def next_phase(self) -> None:
        """Give the main thread `GRACE_SECONDS` seconds from now on, if it was asked to end."""
        self.phase += 1
        if self.number:
            timer = threading.Timer(GRACE_SECONDS, self.on_timeout, [self.phase])
            timer.daemon = True
            with suppress(RuntimeError):  # no thread can be started: wait for the end of the block
                timer.start()

    def on_timeout(self, phase: int) -> None:
        """The main thread did not end in time: save in its place, and end the process if it is ours."""
        with self.lock:
            if phase != self.phase or (self.is_saving and self.rescue is None):
                return
            outcome = self.rescued() if self.is_saving else Interrupted(self.number)
            if self.owns_process:
                if not self.is_saving:
                    with_timeout(self.undo)
                report: Any = self.report_stopped if isinstance(outcome, Stopped) else print_error
                with_timeout(lambda: report(outcome))
                with_timeout(restore_terminal)
                os._exit(exit_code_of(outcome))
            self.outcome = outcome if self.is_saving else None

    def rescued(self) -> Exception:
        """The outcome of saving: what `rescue` returned or raised."""
        assert self.rescue is not None
        try:
            return self.rescue(self.number)
        except Exception as trouble:
            return trouble

    @contextmanager
    def saving(self, rescue: Callable[[int], Exception] | None) -> Iterator[None]:
        """Within, the main thread checks for signals itself. `rescue(number)` saves and returns what to raise."""
        with self.lock:
            self.rescue, self.is_saving = rescue, True
            self.next_phase()
            try:
                yield
            finally:
                self.is_saving = False
                self.next_phase()

    @contextmanager
    def undoing(self, undo: Callable[[], object]) -> Iterator[None]:
        """Within, outside of `saving`, `undo()` is called if the main thread does not end in time."""
        before, self.undo = self.undo, undo
        try:
            yield
        finally:
            self.undo = before

    @contextmanager
    def computing(self) -> Iterator[None]:
        """Within `saving`: work that may take long, during which `rescue` may be called. Raises what it returned."""
        self.lock.release()
        try:
            yield
        finally:
            self.lock.acquire()
        if self.outcome is not None:
            raise self.outcome


OWN: list[Guard] = []
"""The guard of this process, if it is the command."""


def install_guard() -> None:
    """Handle the signals of this process until `remove_guard`; for the command."""
    guard, before = Guard(owns_process=True), sys.unraisablehook
    guard.install()
    OWN[:] = [guard]

    def hook(unraisable: "sys.UnraisableHookArgs") -> None:
        if not isinstance(unraisable.exc_value, Interrupted):  # Interrupted has been noted
            before(unraisable)

    sys.unraisablehook = hook


def remove_guard() -> None:
    """Restore the caller's signal handlers."""
    while OWN:
        OWN.pop().remove()


@contextmanager
def graceful_shutdown() -> Iterator[Guard]:
    """The guard of this process, or a new one for this block."""
    if OWN:
        yield OWN[0]
        return
    guard = Guard()
    guard.install()
    try:
        yield guard
    finally:
        guard.remove()


@contextmanager
def reporting_stop(report: Callable[[Stopped], object]) -> Iterator[None]:
    """Within, `report(stopped)` reports that the state is saved when a signal ends the process."""
    if not OWN:
        yield
        return
    before, OWN[0].report_stopped = OWN[0].report_stopped, report
    try:
        yield
    finally:
        OWN[0].report_stopped = before


def importing(frame: FrameType | None) -> bool:
    """Whether a module is being imported: an exception while an extension initialises may abort the process."""
    while frame is not None and not frame.f_code.co_filename.startswith("<frozen importlib"):
        frame = frame.f_back
    return frame is not None


def interrupted() -> int:
    """The exit code if Interrupted was raised in this process, even if it was swallowed on its way; else 0."""
    return 128 + OWN[0].number if OWN and OWN[0].raised else 0


def exit_code_of(outcome: BaseException) -> int:
    """The exit code: 128 plus the signal number, or 2 if saving failed."""
    return 128 + outcome.signal_number if isinstance(outcome, Stopped | Interrupted) else 2
