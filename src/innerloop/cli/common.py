"""Helpers shared by the subcommands: argument parsing, JAX setup and consoles."""

import errno
import os
import re
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, TypeVar, get_type_hints

import tyro
from rich.console import Console
from rich.text import Text
from tyro.conf import arg

from innerloop.cli.complaints import in_one_sentence
from innerloop.cli.help import RULES
from innerloop.config.bounds import DEVICES, STEPS, check_bounds
from innerloop.errors import InnerloopError
from innerloop.io.files import make_folder
from innerloop.io.text import as_json, first_repeated, printable
from innerloop.parallel.cpu_devices import has_started, use_cores

Arguments = TypeVar("Arguments")

OWN = "(default: the run's evaluation setting)"
"""How the help describes the default of a setting of the evaluation."""

Runs = Annotated[
    tuple[str, ...],
    tyro.conf.Positional,
    arg(
        metavar="RUN [RUN ...]",
        help="Run folders, weights files, or presets with bundled weights.",
        help_behavior_hint="",
    ),
]

Source = Annotated[
    str,
    tyro.conf.Positional,
    arg(metavar="SOURCE", help="A run's folder, a weights file, or a preset with bundled weights."),
]

DataFolder = Annotated[str, arg(metavar="DIR", help_behavior_hint="(default: as trained)")]
"""Where the training data are, if they have moved."""

Count = Annotated[int | None, arg(metavar="N", help_behavior_hint=OWN)]
"""A number that defaults to the run's own."""

Steps = Annotated[int | None, STEPS, arg(metavar="N", help="Inner steps.", help_behavior_hint=OWN)]

Devices = Annotated[
    int | None,
    DEVICES,
    arg(metavar="N", help="CPU devices to split tasks over.", help_behavior_hint="(default: one per core)"),
]


def parse(cls: type[Arguments], argv: Sequence[str], default: object = None, name: str = "") -> Arguments:
    """Parse the arguments of a subcommand; tyro exits with code 0 after `--help`.

    `cls` is a dataclass with the help text as its docstring, named after the subcommand unless `name` is given;
    `default` holds default values of all fields (None: those of `cls`). Raises InnerloopError if an argument is
    missing, unknown or wrong, or a number is out of bounds.
    """
    prog = f"innerloop {name or cls.__name__.lower()}"
    settings: dict[str, Any] = {} if default is None else {"default": default, "compact_help": True}
    # With a default that may be true, a flag needs its opposite: `--data.flip` and `--data.no-flip`.
    markers = (tyro.conf.OmitSubcommandPrefixes, *(() if settings else (tyro.conf.FlagCreatePairsOff,)))
    run_tyro = lambda words: tyro.cli(cls, prog=prog, args=words, config=markers, registry=RULES, **settings)
    arguments = in_one_sentence(run_tyro, list(argv), prog.split()[-1])
    check_bounds(arguments, lambda field: _option(cls, field))
    if getattr(arguments, "runs", None) == ():
        raise InnerloopError(prog.split()[-1], "needs a run", hint="give a run's folder")
    _check_values(arguments, argv)
    _check_paths(arguments, argv, prog.split()[-1])
    return arguments


def _check_values(arguments: object, argv: Sequence[str]) -> None:
    """Raise InnerloopError for an option that was given twice, or one of several values that was given none."""
    given = [word.partition("=")[0].replace("_", "-") for word in argv if re.match("--[a-z]", word)]
    # A switch and its opposite, such as `--data.flip` and `--data.no-flip`, are one option.
    if repeated := first_repeated(re.sub(r"^(--|.*\.)no-", r"\1", name) for name in given):
        raise InnerloopError(repeated, "is given more than once", hint="give it once")
    for word, following in zip(argv, [*argv[1:], "--"], strict=False):
        if word.startswith("--") and following.startswith("--") and _value_of(arguments, word) == ():
            raise InnerloopError(word, "needs a value", hint="give one or more, or leave it out")


def _check_paths(arguments: object, argv: Sequence[str], command: str) -> None:
    """Raise InnerloopError for an empty path, which would mean the current folder."""
    words = [part for word in argv for part in (word.split("=", 1) if word.startswith("--") else [word])]
    for before, word in zip(("", *words), words, strict=False):
        if word == "" and before.startswith("--"):
            value = _value_of(arguments, before)
            first = next(iter(value), None) if isinstance(value, tuple) else value
            if isinstance(first, Path) or before in ("--against", "--data-folder", "--data_folder"):
                raise InnerloopError(before, "must name a file or folder", got="''")
        elif word == "" and not (hasattr(arguments, "preset") or hasattr(arguments, "words")):
            raise InnerloopError(command, "must name a file or folder", got="''")


def _value_of(arguments: object, option: str) -> object:
    """The value of an option; None for anything else."""
    value = arguments
    for name in option.removeprefix("--").replace("-", "_").split("."):
        value = getattr(value, name, None)
    return value


def _option(cls: type, field: str) -> str:
    """The command-line option for a field."""
    beside = getattr(get_type_hints(cls, include_extras=True)[field], "__metadata__", ())
    names = [name for x in beside if (name := getattr(x, "name", None))]
    return "--" + (names[0] if names else field).replace("_", "-")


def start_jax(devices: int | None = None, *, alone: bool = True) -> None:
    """Set up JAX with this number of CPU devices (None: one per core); compiled programs are cached on disk.

    To be called before JAX is first used. Unless this process is `alone`, JAX starts later, with the others. Raises
    InnerloopError if JAX is already running with a different number of devices, or cannot start.
    """
    _keep_compiled()
    if not has_started():
        use_cores(devices)
    elif devices not in (None, _number_of_devices()):  # this is not the first command of the process
        raise InnerloopError("--devices", "JAX has started already", got=devices, hint="start a new process")
    if alone:
        _number_of_devices()


def _number_of_devices() -> int:
    """The number of JAX devices; starts JAX if necessary."""
    import jax

    try:
        return len(jax.devices())
    except (RuntimeError, AssertionError) as error:  # JAX asserts if every platform fails without a message
        reason = (str(error).splitlines() or ["no such device"])[0].split("(set JAX_PLATFORMS")[0]
        wanted = os.environ.get("JAX_PLATFORMS")
        hint = "unset JAX_PLATFORMS, or install what it asks for"
        raise InnerloopError(
            "JAX", f"cannot start ({printable(reason.strip(), 300)})", got=wanted, hint=hint
        ) from None


def _keep_compiled() -> None:
    """Cache compiled programs on disk, if the cache folder is writable.

    All of them, also those that compile quickly, unless JAX's environment variable sets another limit.
    """
    import jax

    folder = _usable_cache()
    jax.config.update("jax_compilation_cache_dir", None if folder is None else str(folder))
    if "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS" not in os.environ:
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)


def _usable_cache() -> Path | None:
    """The folder for compiled programs, or None after a warning. Raises InnerloopError for a bad INNERLOOP_CACHE."""
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
    warnings.warn(f"innerloop: compiled programs are not cached ({reason.rstrip('.')})", stacklevel=2)
    return None


class Terminal(Console):
    """A console that shows text literally: brackets are not markup, and control characters are escaped."""

    def on_broken_pipe(self) -> None:
        """Let `innerloop.cli.main` handle it; rich would exit with 1."""
        raise BrokenPipeError(errno.EPIPE, "the reader closed the pipe")

    def render_str(self, text: str, **settings: Any) -> Text:
        """Render a string; everything printed and every table cell passes through here."""
        return super().render_str(printable(text), **settings)


def console(*, stderr: bool = False) -> Terminal:
    """A console as wide as the terminal, or wide enough for every table if there is none."""
    settings: dict[str, Any] = {"stderr": stderr, "highlight": False, "soft_wrap": True}
    settings |= {"markup": False, "emoji": False}
    plain = Terminal(**settings)
    return plain if plain.is_terminal else Terminal(**settings, width=160)


def print_json(value: object, indent: int | None = None) -> None:
    """Print one JSON value; non-finite numbers become null."""
    print(as_json(value, indent))
