"""What the subcommands share: parsing, JAX's settings, consoles."""

import contextlib
import errno
import io
import os
import sys
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, TypeVar, get_type_hints

import tyro
from rich.console import Console
from rich.text import Text

from innerloop.config.bounds import DEVICES, STEPS, check_bounds
from innerloop.errors import InnerloopError
from innerloop.io.files import make_folder
from innerloop.io.text import LIMIT, as_json, printable
from innerloop.parallel.cpu_devices import has_started, use_cores

Arguments = TypeVar("Arguments")

Count = Annotated[int | None, tyro.conf.arg(metavar="N", help_behavior_hint="(default: as trained)")]
"""A number that stays as the run has it unless it is given."""

Steps = Annotated[Count, STEPS]
"""Inner steps."""

Devices = Annotated[
    int | None, DEVICES, tyro.conf.arg(metavar="N", help_behavior_hint="(default: one per core)")
]
"""CPU devices."""


def parse(cls: type[Arguments], argv: Sequence[str], default: Any = None, name: str = "") -> Arguments:
    """The arguments as a dataclass; tyro ends the program with code 2 if they do not fit.

    The dataclass has the subcommand's name, and its docstring is the help. Raises InnerloopError for a number beyond
    its bounds.
    """
    prog = f"innerloop {name or cls.__name__.lower()}"
    settings: dict[str, Any] = {} if default is None else {"default": default, "compact_help": True}
    markers = (tyro.conf.FlagCreatePairsOff, tyro.conf.OmitSubcommandPrefixes)
    with _printable_complaints():
        arguments = tyro.cli(cls, prog=prog, args=list(argv), config=markers, **settings)
    check_bounds(arguments, lambda field: _option(cls, field))
    return arguments


@contextlib.contextmanager
def _printable_complaints() -> Iterator[None]:
    """What tyro says of wrong arguments repeats them: their control characters become escapes.

    Raises InnerloopError where a setting was refused, of which tyro would make a box.
    """
    told = io.StringIO()
    try:
        with contextlib.redirect_stderr(told):
            yield
    except SystemExit as ended:
        if (refused := _refusal(ended)) is not None:
            who = "--" + refused.who.replace("_", "-")
            raise InnerloopError(who, str(refused).removeprefix(f"{refused.who}: ")) from None
        for line in told.getvalue().splitlines()[:100]:
            print(printable(line, LIMIT), file=sys.stderr)
        raise


def _refusal(ended: BaseException | None) -> InnerloopError | None:
    """The refused setting behind the end of the program, if one was."""
    while ended is not None and not isinstance(ended, InnerloopError):
        ended = ended.__context__
    return ended


def _option(cls: type, field: str) -> str:
    """The option that gives a field."""
    beside = getattr(get_type_hints(cls, include_extras=True)[field], "__metadata__", ())
    names = [name for x in beside if (name := getattr(x, "name", None))]
    return "--" + (names[0] if names else field).replace("_", "-")


def start_jax(devices: int | None = None, *, alone: bool = True) -> None:
    """Set JAX up before its first use: CPU devices (default: one per core) and compiled programs kept on disk.

    Not `alone`: its devices are left until the other processes are there. Raises InnerloopError if JAX already runs
    with another number of devices, or has none of the wanted kind.
    """
    _keep_compiled()
    if not has_started():
        use_cores(devices)
    elif devices not in (None, _number_of_devices()):  # this is not the first command of the process
        raise InnerloopError("--devices", "JAX has started already", got=devices, do="start a new process")
    if alone:
        _number_of_devices()


def _number_of_devices() -> int:
    """How many devices JAX has, started if need be. Raises InnerloopError if it cannot start."""
    import jax

    try:
        return len(jax.devices())
    except (
        RuntimeError,
        AssertionError,
    ) as error:  # the latter where all kinds of devices fail without a word
        reason = (str(error).splitlines() or ["no such device"])[0].split("(set JAX_PLATFORMS")[0]
        wanted = os.environ.get("JAX_PLATFORMS")
        do = "unset JAX_PLATFORMS, or install what it asks for"
        raise InnerloopError(
            "JAX", f"cannot start ({printable(reason.strip(), 300)})", got=wanted, do=do
        ) from None


def _keep_compiled() -> None:
    """Keep compiled programs in the cache folder; where that cannot be written they are compiled each time."""
    import jax

    folder = _usable_cache()
    jax.config.update("jax_compilation_cache_dir", None if folder is None else str(folder))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)


def _usable_cache() -> Path | None:
    """Where compiled programs are kept, or None after a warning. Raises InnerloopError for a wrong INNERLOOP_CACHE."""
    from innerloop.tasks.io.download import cache_folder

    try:
        folder = cache_folder() / "compiled"
        with make_folder(folder):
            writable = os.access(folder, os.W_OK)
        if writable:
            return folder
        reason = f"{folder} is not writable"
    except InnerloopError as error:
        if "INNERLOOP_CACHE" in os.environ:
            raise
        reason = str(error)
    except OSError as error:
        reason = f"{error.filename}: {error.strerror}"
    warnings.warn(f"innerloop: compiled programs are not kept ({reason.rstrip('.')})", stacklevel=2)
    return None


class Terminal(Console):
    """Shows data as what it is: brackets are no markup, and control characters become escapes."""

    def on_broken_pipe(self) -> None:
        """Let `innerloop.cli.main` end it; rich would end with 1."""
        raise BrokenPipeError(errno.EPIPE, "nobody reads")

    def render_str(self, text: str, **settings: Any) -> Text:
        """Every string that is printed, or is a cell of a table, comes through here."""
        return super().render_str(printable(text), **settings)


def console(*, stderr: bool = False) -> Terminal:
    """Where people read: as wide as the terminal, and wide enough for every table in a pipe."""
    settings: dict[str, Any] = {"stderr": stderr, "highlight": False, "soft_wrap": True}
    settings |= {"markup": False, "emoji": False}
    plain = Terminal(**settings)
    return plain if plain.is_terminal else Terminal(**settings, width=160)


def print_json(value: Any, indent: int | None = None) -> None:
    """One JSON object for other programs: what is no finite number is null."""
    print(as_json(value, indent))
