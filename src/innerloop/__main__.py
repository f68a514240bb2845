"""`python -m innerloop` is the command `innerloop`."""

import os
import sys
import traceback
from contextlib import suppress

from innerloop import signals


def entry() -> None:
    """The command as a process of its own, which ends when its work has ended.

    After an error, threads of Orbax or XLA that cannot end any more do not keep it.
    """
    open_streams()
    signals.take()
    from innerloop.cli import flushed, main

    try:
        code = main()
    except BaseException as error:
        code = 1
        if signals.interrupted():
            signals.say(signals.Interrupted(0))
        else:
            traceback.print_exception(error)
    code = signals.interrupted() or flushed(code)
    if code:
        signals.leave(code)


def open_streams() -> None:
    """Let no file get the place of a standard stream that is closed, and no character be one too many."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115 (until the process ends)
        with suppress(AttributeError, ValueError):
            getattr(sys, name).reconfigure(errors="backslashreplace")


if __name__ == "__main__":
    entry()
