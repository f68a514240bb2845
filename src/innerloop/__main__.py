"""`python -m innerloop` is the command `innerloop`."""

import os
import traceback
from collections.abc import Callable

from innerloop.training.interruption import process_end, signals


def entry(work: Callable[[], int] | None = None) -> None:
    """Run the command, or part of its work, as a separate process that exits when the work is done.

    After an error, Orbax or XLA threads that can no longer finish do not keep the process alive.
    """
    signals.install_guard()
    os.environ["MPLBACKEND"] = "agg"  # figures go to files; a backend set for other programs may be missing
    from innerloop.cli import flushed, guarded, main

    try:
        code = main() if work is None else guarded(work)
    except BaseException as error:
        code = 1
        if signals.interrupted():
            process_end.print_error(signals.Interrupted(0))
        else:
            traceback.print_exception(error)
    code = signals.interrupted() or flushed(code)
    if code:
        process_end.exit_now(code)


if __name__ == "__main__":
    entry()
