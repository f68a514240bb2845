"""`python -m innerloop` is the command `innerloop`."""

import os
import traceback
from collections.abc import Callable

from innerloop.training import signals


def entry(work: Callable[[], int] | None = None) -> None:
    """The command, or a part of its work, as a process of its own, which ends when its work has ended.

    After an error, threads of Orbax or XLA that cannot end any more do not keep it.
    """
    signals.take()
    os.environ["MPLBACKEND"] = "agg"  # figures go to files; what is set for other programs may not be there
    from innerloop.cli import flushed, guarded, main

    try:
        code = main() if work is None else guarded(work)
    except BaseException as error:
        code = 1
        if signals.interrupted():
            signals.say(signals.Interrupted(0))
        else:
            traceback.print_exception(error)
    code = signals.interrupted() or flushed(code)
    if code:
        signals.leave(code)


if __name__ == "__main__":
    entry()
