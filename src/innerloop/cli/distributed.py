"""One process of several: joining, ending together, and telling when another was lost.

JAX ends a process at once when its coordinator or another process is gone, by an abort that no Python code can follow.
So the training is a child of the command, and the command tells what happened and how to go on.
"""

import os
import signal
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path

from innerloop.cli import fail, in_options
from innerloop.errors import InnerloopError
from innerloop.training import signals

CHILD = "INNERLOOP_CHILD"
"""Set in the environment of the child to the command's process number."""

COMMAND = (sys.executable, "-m", "innerloop", "train")

LOST = 75
"""Exit code when another process was lost: a failure that passes, as sysexits.h has it."""

EVERY = 0.5
"""Seconds between looks at whether the command still lives."""


def is_child() -> bool:
    """Whether this process trains, and its parent watches."""
    return os.environ.get(CHILD, "") == str(os.getppid())


def supervise(argv: Sequence[str], folder: Path) -> int:
    """Run `innerloop train` with these arguments as a child; its exit code, or `LOST` after telling so."""
    # In a session of its own: a Ctrl-C reaches this process alone, which hands it on once.
    child = subprocess.Popen(
        [*COMMAND, *argv], env=os.environ | {CHILD: str(os.getpid())}, start_new_session=True
    )
    signals.give_back()
    for number in signals.NUMBERS:
        signal.signal(number, lambda number, frame: child.send_signal(number))
    code = child.wait()
    if code == -signal.SIGABRT:
        _tell_lost(folder)
        return LOST
    return code if code >= 0 else 128 - code


def _tell_lost(folder: Path) -> None:
    """The sentence for a lost process."""
    begun = (folder / "config.json").exists()  # another machine may not see it
    where = f"--resume {folder}" if begun else "--resume if the first has kept a checkpoint"
    told = "train: another process of this run was lost or did not come; to go on from the last checkpoint, "
    fail(f"{told}start any number of processes again with {where}.", LOST)


def end_with_parent() -> None:
    """End this process when the command that watches it is gone."""
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(EVERY)
        os._exit(LOST)

    threading.Thread(target=watch, name="innerloop-parent", daemon=True).start()


def as_one(work: Callable[[], int], folder: Path) -> int:
    """Do this process's part. After an error it ends at once, since the others will not come to the last meeting."""
    from innerloop.parallel.multi_process import Lost, is_primary

    try:
        return work()
    except InnerloopError as error:
        code = fail(in_options(error), 2)
    except Lost:
        _tell_lost(folder)
        code = LOST
    except Exception:
        traceback.print_exc()
        code = 1
    if is_primary():
        time.sleep(1)  # the others lose their coordinator with it: let them tell what they met
    sys.stdout.flush()
    os._exit(code)
