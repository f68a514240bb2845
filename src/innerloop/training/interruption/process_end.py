"""How a process that may be stuck ends: one sentence on standard error, the cursor shown, the output flushed."""

import os
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import NoReturn

from innerloop.io.text import LIMIT, printable


def print_error(error: object) -> None:
    """Print an error or a message as one sentence to standard error."""
    with suppress(OSError, ValueError):
        print(f"innerloop: {printable(str(error), LIMIT)}", file=sys.stderr, flush=True)


def with_timeout(work: Callable[[], object], seconds: float = 1.0) -> None:
    """Do work that may block, such as writing to a pipe that nobody reads, and wait at most `seconds` for it."""

    def quietly() -> None:
        with suppress(Exception):
            work()

    thread = threading.Thread(target=quietly, daemon=True)
    with suppress(RuntimeError):  # no thread can be started
        thread.start()
        thread.join(seconds)


def restore_terminal() -> None:
    """Show the cursor, which a progress bar hides."""
    for stream in (1, 2):
        with suppress(OSError):
            if os.isatty(stream):
                os.write(stream, b"\x1b[?25h\n")


def exit_now(code: int) -> NoReturn:
    """Flush the output and end the process, whatever its other threads do."""
    with_timeout(lambda: (sys.stdout.flush(), sys.stderr.flush()))
    os._exit(code)
