"""Signals: the first one leaves time to save, a second one ends the command at once.

Python runs a signal's handler in the main thread, between two of its own instructions. While XLA compiles or computes
there may be none for minutes, and an exception that a handler raises is lost where the interpreter ignores exceptions.
So the number of a signal also goes through a socket to a thread (`signal.set_wakeup_fd`), which acts when it is time.
"""

import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

from innerloop.io.text import LIMIT, printable

HANGUP: int | None = getattr(signal, "SIGHUP", None)  # Windows has none
NUMBERS = (signal.SIGINT, signal.SIGTERM, *([] if HANGUP is None else [HANGUP]))

PATIENCE = 2.5
"""Seconds that the main thread has to end by itself."""

SAME = 0.3
"""Seconds in which a signal that comes twice counts once: a launcher may pass on what the terminal sent to all."""


class Stopped(Exception):
    """The run was asked to stop, and saved its state first."""

    def __init__(self, signal_number: int, step: int, folder: Path):
        self.signal_number, self.step, self.folder = signal_number, step, folder
        super().__init__(f"stopped at meta-step {step}; state saved; go on with `resume`")


class Interrupted(KeyboardInterrupt):
    """A signal came where there was nothing to save."""

    def __init__(self, signal_number: int):
        self.signal_number = signal_number
        super().__init__("interrupted.")


def handle_all(handler: Callable[[int, FrameType | None], object]) -> dict[int, Any]:
    """Have a handler called at every signal; a hangup that is ignored stays so, as `nohup` wants it.

    Returns:
        The handlers before, by the number of the signal.
    """
    taken = [n for n in NUMBERS if n != HANGUP or signal.getsignal(n) != signal.SIG_IGN]
    return {number: signal.signal(number, handler) for number in taken}


class Guard:
    """What SIGINT, SIGTERM and SIGHUP do.

    Within `saving` the first one is noted in `numbers`, for the main thread to see; after `PATIENCE` seconds a thread
    saves what `rescue` saves. Elsewhere it raises Interrupted in the main thread if the process is `ours` (the
    command), and does what it did before if not. Only our own process is ever ended: by a second signal, or where the
    main thread does not come to its end in time.
    """

    def __init__(self, *, ours: bool = False):
        self.ours, self.is_saving = ours, False
        self.raised: Interrupted | None = None
        """Kept with the frames that it went through: XLA's threads may still use what they hold."""
        self.numbers: list[int] = []
        self.came: float | None = None
        self.phase = 0
        self.rescue: Callable[[int], Exception] | None = None
        self.outcome: BaseException | None = None
        self.tell: Callable[[Stopped], object] = say
        self.books = threading.Lock()
        """Held by the main thread within `saving`, except within `computing`."""
        self.kept: dict[int, Any] = {}
        self.listener: Listener | None = None

    def install(self) -> None:
        """Take the signals. Outside the main thread they are the caller's business."""
        if threading.current_thread() is not threading.main_thread():
            return
        self.listener = Listener(self.heard)
        self.kept = handle_all(self.handle)

    def remove(self) -> None:
        """Give them back."""
        self.phase += 1
        for number, handler in self.kept.items():
            signal.signal(number, handler)
        self.kept = {}
        if self.listener is not None:
            self.listener.close()
            self.listener = None

    def handle(self, number: int, frame: FrameType | None) -> None:
        """What Python calls, in the main thread."""
        self.note(number)
        if not self.ours:
            signal.signal(number, self.kept[number])  # a second one does what it did before
            if not self.is_saving:
                signal.raise_signal(number)
        elif not (self.is_saving or self.raised):
            self.raised = Interrupted(number)
            if importing(frame):
                say(self.raised)
                leave(128 + number)
            raise self.raised

    def heard(self, number: int) -> None:
        """What the listener calls, in its thread."""
        if self.came is None:
            self.came = time.monotonic()
            self.note(number)
            self.next_phase()
        # A shell sends a second SIGHUP after the terminal's own.
        elif self.ours and number != HANGUP and time.monotonic() - self.came > SAME:
            in_time(restore_terminal)
            os._exit(128 + number)

    def note(self, number: int) -> None:
        """Keep the first one."""
        if not self.numbers:
            self.numbers.append(number)

    def next_phase(self) -> None:
        """The main thread has `PATIENCE` from now on, if it is asked to end."""
        self.phase += 1
        if self.numbers:
            timer = threading.Timer(PATIENCE, self.late, [self.phase])
            timer.daemon = True
            with suppress(RuntimeError):  # no more threads: the end of the block has to do
                timer.start()

    def late(self, phase: int) -> None:
        """The main thread has not come to an end: save for it, and end the process if it is ours."""
        with self.books:
            if phase != self.phase or (self.is_saving and self.rescue is None):
                return
            outcome = self.rescued() if self.is_saving else Interrupted(self.numbers[0])
            if self.ours:
                in_time(lambda: self.tell(outcome) if isinstance(outcome, Stopped) else say(outcome))
                in_time(restore_terminal)
                os._exit(code_of(outcome))
            self.outcome = outcome if self.is_saving else None

    def rescued(self) -> Exception:
        """What came of saving."""
        assert self.rescue is not None
        try:
            return self.rescue(self.numbers[0])
        except Exception as trouble:
            return trouble

    @contextmanager
    def saving(self, rescue: Callable[[int], Exception] | None) -> Iterator[None]:
        """Here a signal is for the main thread to see. `rescue(number)` saves, and returns what is to be raised."""
        with self.books:
            self.rescue, self.is_saving = rescue, True
            self.next_phase()
            try:
                yield
            finally:
                self.is_saving = False
                self.next_phase()

    @contextmanager
    def computing(self) -> Iterator[None]:
        """Within `saving`: what may take long, while `rescue` may be called. Raises what that returned."""
        self.books.release()
        try:
            yield
        finally:
            self.books.acquire()
        if self.outcome is not None:
            raise self.outcome


class Listener:
    """A thread that hears of signals at once, whatever the main thread does."""

    def __init__(self, heard: Callable[[int], None]):
        self.heard = heard
        self.ear, self.mouth = socket.socketpair()
        self.mouth.setblocking(False)
        self.before = signal.set_wakeup_fd(self.mouth.fileno(), warn_on_full_buffer=False)
        threading.Thread(target=self.work, name="innerloop-signals", daemon=True).start()

    def work(self) -> None:
        """Hand on the numbers until closed, also to an event loop that listened before."""
        with self.ear:
            while numbers := self.ear.recv(64):
                for number in numbers:
                    if number in NUMBERS:
                        self.heard(number)
                if self.before >= 0:
                    with suppress(OSError):
                        os.write(self.before, numbers)

    def close(self) -> None:
        """Hear no more."""
        signal.set_wakeup_fd(self.before)
        self.mouth.close()


OWN: list[Guard] = []
"""The guard of this process, if it is the command."""


def take() -> None:
    """Make the signals of this process ours, for good."""
    guard, before = Guard(ours=True), sys.unraisablehook
    guard.install()
    OWN[:] = [guard]

    def hook(unraisable: "sys.UnraisableHookArgs") -> None:
        if not isinstance(unraisable.exc_value, Interrupted):  # that one was noted
            before(unraisable)

    sys.unraisablehook = hook


def give_back() -> None:
    """Let the caller have the signals."""
    while OWN:
        OWN.pop().remove()


@contextmanager
def graceful_shutdown() -> Iterator[Guard]:
    """The guard of this process, or one for this block."""
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
def telling(tell: Callable[[Stopped], object]) -> Iterator[None]:
    """Here `tell(stopped)` says that the state is saved when a signal ends the process."""
    if not OWN:
        yield
        return
    before, OWN[0].tell = OWN[0].tell, tell
    try:
        yield
    finally:
        OWN[0].tell = before


def importing(frame: FrameType | None) -> bool:
    """Whether a module is being imported: an exception in the middle of an extension's start may abort the process."""
    while frame is not None and not frame.f_code.co_filename.startswith("<frozen importlib"):
        frame = frame.f_back
    return frame is not None


def interrupted() -> int:
    """The exit code if Interrupted was raised in this process, whatever became of it on its way; else 0."""
    return 128 + OWN[0].numbers[0] if OWN and OWN[0].raised else 0


def code_of(outcome: BaseException) -> int:
    """The exit code: 128 and the signal's number, or 2 where saving failed."""
    return 128 + outcome.signal_number if isinstance(outcome, Stopped | Interrupted) else 2


def say(outcome: BaseException) -> None:
    """One sentence on standard error."""
    with suppress(OSError, ValueError):
        print(f"innerloop: {printable(str(outcome), LIMIT)}", file=sys.stderr, flush=True)


def in_time(work: Callable[[], object], seconds: float = 1.0) -> None:
    """Do something that a reader who does not read could hold up, and wait no longer than that for it."""

    def quietly() -> None:
        with suppress(Exception):
            work()

    thread = threading.Thread(target=quietly, daemon=True)
    with suppress(RuntimeError):  # no more threads
        thread.start()
        thread.join(seconds)


def restore_terminal() -> None:
    """Show the cursor, which a progress bar hides."""
    for stream in (1, 2):
        with suppress(OSError):
            if os.isatty(stream):
                os.write(stream, b"\x1b[?25h\n")


def leave(code: int) -> NoReturn:
    """End the process, whatever its other threads do, with all said that was to be said."""
    in_time(lambda: (sys.stdout.flush(), sys.stderr.flush()))
    os._exit(code)
