"""The `innerloop` command: one module per subcommand, imported only when it is called, so that help is fast.

Bad input prints a one-sentence error to stderr and exits with code 2; a signal exits with 128 plus its number.
"""

import errno
import importlib
import os
import re
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress

from innerloop.cli import streams
from innerloop.errors import InnerloopError, did_you_mean
from innerloop.training.interruption.process_end import print_error
from innerloop.training.interruption.signals import Interrupted

COMMANDS = {
    "list": "list the presets: paper protocols, recipes, and your own data",
    "train": "meta-train a preset into a run folder, or resume a run",
    "evaluate": "measure a trained initialisation on held-out tasks",
    "adapt": "adapt to a few examples of your own and predict new ones",
    "export": "adapt, and write the network as ONNX or StableHLO for deployment",
    "analyze": "rapid learning or feature reuse? Experiments on a trained run",
    "report": "write an HTML report on one or more runs",
    "compare": "print a table that compares several runs and seeds",
    "reproduce": "repeat a run from its config and compare bit for bit",
    "quickstart": "train, measure and compare the four algorithms in minutes",
    "demo": "open a page: draw five characters, watch four algorithms adapt",
    "completion": "print a shell completion script",
}

MODULES = {"list": "presets"}
"""Modules named differently from their command: one named `list` would shadow the built-in in this file."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code."""
    argv = list(sys.argv[1:] if argv is None else argv)
    return guarded(lambda: dispatch(argv))


def guarded(work: Callable[[], int]) -> int:
    """Run a command; report whatever ends it early in one sentence and return its exit code."""
    try:
        with streams.prepared():
            return work()
    except InnerloopError as error:
        return fail(in_options(error), 2)
    except KeyboardInterrupt as asked:
        return fail("interrupted.", 128 + asked.signal_number if isinstance(asked, Interrupted) else 130)
    except OSError as error:
        return _system_error(error)
    except SystemExit as asked:  # tyro ends so after --help (0) and bad arguments (2)
        return asked.code if isinstance(asked.code, int) else 0


SETTING = re.compile(
    r"`((?:data|model|inner|outer|evaluation|rl|distributed)\.[a-z_]+|algorithm|seed|precision"
    r"|resume|overwrite|format|data_folder)`"
)
"""The name of a setting as the library's error messages quote it."""


def in_options(error: InnerloopError) -> str:
    """An error's message with the names of settings replaced by the command's options."""
    is_setting = SETTING.fullmatch(f"`{error.who}`")
    text = f"`{error.who}`: {error.problem}" if is_setting else str(error)
    return SETTING.sub(lambda found: "--" + found[1].replace("_", "-"), text)


UNWRITABLE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EBADF)
"""Errors without a file name that come from a standard stream: a full disk, a terminal that is gone."""


def _system_error(error: OSError) -> int:
    """Report an operating-system error in one sentence and return the exit code; re-raise any other error."""
    if isinstance(error, BrokenPipeError):  # the reader closed the pipe, as in `innerloop list | head`
        with suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    if error.filename is not None:
        return fail(f"{error.filename}: {error.strerror}.", 2)
    if error.errno not in UNWRITABLE:
        raise error
    return fail(f"standard output: cannot be written ({error.strerror}); check the disk or terminal.", 2)


def flushed(code: int) -> int:
    """Flush standard output and return the exit code."""
    try:
        sys.stdout.flush()
    except OSError as error:
        return code or _system_error(error)
    return code


def dispatch(argv: list[str]) -> int:
    """Run the subcommand named by the first argument and return its exit code."""
    if not argv or argv[0] in ("-h", "--help", "help"):
        print(_usage())
        return 0
    if argv[0] in ("-V", "--version"):
        from innerloop.io.versions import version

        print(f"innerloop {version('innerloop')}")
        return 0
    if argv[0] not in COMMANDS:
        hint = did_you_mean(argv[0], COMMANDS, "choose among: " + ", ".join(COMMANDS))
        raise InnerloopError("command", "is unknown", got=repr(argv[0]), hint=hint)
    return importlib.import_module(f"innerloop.cli.{MODULES.get(argv[0], argv[0])}").run(argv[1:])


def _usage() -> str:
    """The help text of the whole command."""
    commands = "\n".join(f"  {name:<12}{what}" for name, what in COMMANDS.items())
    return f"""\
usage: innerloop COMMAND ...

Gradient-based meta-learning: learn an initialisation from which a few
gradient steps solve a new task.

commands:
{commands}

`innerloop COMMAND --help` lists its options.
`innerloop --version` prints the version.
To get started: innerloop quickstart"""


def fail(message: str, code: int) -> int:
    """Print an error message as one sentence and return the exit code."""
    print_error(message)
    return code
