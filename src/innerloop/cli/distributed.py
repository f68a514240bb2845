"""One of several training processes: joining, ending together, and reporting the loss of another.

When the coordinator or another process is gone, JAX aborts this process, and no Python code can react. So training
runs in a child process, and the command reports what happened and how to resume.
"""

import os
import signal
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

from innerloop.cli import fail, in_options
from innerloop.errors import InnerloopError
from innerloop.io.text import shell_command
from innerloop.training.interruption import signals

CHILD = "INNERLOOP_CHILD"
"""Set in the child's environment to the process ID of the command."""

COMMAND = (sys.executable, "-P", "-m", "innerloop", "train")
"""-P keeps modules in the working directory from shadowing those that we import; see `same_package`."""

LOST = 75
"""Exit code when another process was lost: a temporary failure (EX_TEMPFAIL of sysexits.h)."""

POLL_EVERY = 0.5
"""Seconds between checks that the command is still alive."""


def is_child() -> bool:
    """Whether this is the child process, which trains."""
    return os.environ.get(CHILD, "") == str(os.getppid())


def supervise(argv: Sequence[str], folder: Path) -> int:
    """Run `innerloop train` with these arguments in a child process; return its exit code, or `LOST`."""
    child, early = None, []
    signals.remove_guard()
    # Before the child exists, so that a signal that arrives while it starts is forwarded too.
    signals.handle_all(lambda number, frame: forward_signal(child, number) if child else early.append(number))
    # In its own session, so that Ctrl-C reaches only this process, which forwards it once.
    child = subprocess.Popen(
        [*COMMAND, *argv], env=same_package() | {CHILD: str(os.getpid())}, start_new_session=True
    )
    for number in early:
        forward_signal(child, number)
    code = child.wait()
    if code == -signal.SIGABRT:
        _report_lost(folder)
        return LOST
    return code if code >= 0 else 128 - code


def same_package() -> dict[str, str]:
    """The environment of a child that imports the same innerloop as this process, even from a clone."""
    others, home = os.environ.get("PYTHONPATH"), Path(__file__).resolve().parents[2]
    if home.name in ("site-packages", "dist-packages"):  # found anyway, after the standard library
        return dict(os.environ)
    return os.environ | {"PYTHONPATH": os.pathsep.join([str(home), others] if others else [str(home)])}


def forward_signal(child: subprocess.Popen[bytes] | subprocess.Popen[str], number: int) -> None:
    """Forward a signal to the child."""
    with suppress(ValueError):  # Windows has no sessions, and sends Ctrl-C to both by itself
        child.send_signal(number)


def _report_lost(folder: Path) -> None:
    begun = (folder / "config.json").exists()  # another machine may not see it
    again = shell_command("train", "--resume", folder)
    where = f"`{again}`" if begun else "--resume if the first process saved a checkpoint"
    lost = "train: another process of this run was lost or never joined; to resume from the last checkpoint, "
    fail(f"{lost}start any number of processes again with {where}.", LOST)


def end_with_parent(command: int | None = None) -> None:
    """End this process when its parent is gone; at once if the parent is no longer `command`.

    On Windows the parent may be Python's launcher, and the parent's ID never changes.
    """
    parent = os.getppid() if command is None or os.name == "nt" else command

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(POLL_EVERY)
        os._exit(LOST)

    threading.Thread(target=watch, name="innerloop-parent", daemon=True).start()


def as_one(work: Callable[[], int], folder: Path) -> int:
    """Run `work`. After an error, end the process at once, since the others cannot reach the final barrier."""
    from innerloop.parallel.multi_process import Lost, is_primary

    try:
        return work()
    except InnerloopError as error:
        code = fail(in_options(error), 2)
    except Lost:
        _report_lost(folder)
        code = LOST
    except Exception:
        traceback.print_exc()
        code = 1
    if is_primary():
        time.sleep(1)  # the others lose their coordinator with this process: let them report first
    sys.stdout.flush()
    os._exit(code)
