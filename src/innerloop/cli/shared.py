"""What the subcommands share: parsing, JAX's settings, consoles, numbers in words."""

import errno
import math
from collections.abc import Sequence
from typing import Annotated, Any, TypeVar

import tyro
from rich import console as rich_console

from innerloop.cores import has_started, use_cores
from innerloop.errors import InnerloopError

Arguments = TypeVar("Arguments")

Count = Annotated[int | None, tyro.conf.arg(metavar="N", help_behavior_hint="(default: as trained)")]
"""A number that stays as the run has it unless it is given."""


Devices = Annotated[int | None, tyro.conf.arg(metavar="N", help_behavior_hint="(default: one per core)")]
"""CPU devices."""


def parse(cls: type[Arguments], argv: Sequence[str], default: Any = None, name: str = "") -> Arguments:
    """The arguments as a dataclass; tyro ends the program with code 2 if they do not fit.

    The dataclass has the subcommand's name, and its docstring is the help.
    """
    prog = f"innerloop {name or cls.__name__.lower()}"
    markers = (tyro.conf.FlagCreatePairsOff, tyro.conf.OmitSubcommandPrefixes)
    if default is None:
        return tyro.cli(cls, prog=prog, args=list(argv), config=markers)
    return tyro.cli(cls, prog=prog, args=list(argv), default=default, config=markers, compact_help=True)


def start_jax(devices: int | None = None) -> None:
    """Set JAX up before its first use: CPU devices (default: one per core) and compiled programs kept on disk.

    Raises InnerloopError for a number of devices under one, and if JAX already runs with another number.
    """
    if devices is not None and devices < 1:
        raise InnerloopError("--devices", "must be 1 or more", got=devices)
    import jax

    from innerloop.datasets.download import cache_folder

    jax.config.update("jax_compilation_cache_dir", str(cache_folder() / "compiled"))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    if not has_started():
        use_cores(devices)
    elif devices not in (None, len(jax.devices())):  # this is not the first command of the process
        raise InnerloopError("--devices", "JAX has started already", got=devices, do="start a new process")


class Console(rich_console.Console):
    """Rich's, which would end with 1 when its reader goes away."""

    def on_broken_pipe(self) -> None:
        """Let `innerloop.cli.main` end it."""
        raise BrokenPipeError(errno.EPIPE, "nobody reads")


def console(*, stderr: bool = False) -> Console:
    """Where people read: as wide as the terminal, and wide enough for every table in a pipe."""
    plain = Console(stderr=stderr, highlight=False, soft_wrap=True)
    if plain.is_terminal:
        return plain
    return Console(stderr=stderr, highlight=False, soft_wrap=True, width=160)


def with_interval(mean: float, ci95: float, name: str) -> str:
    """A mean with its 95 % interval: accuracies in percent, losses as they are."""
    if name == "accuracy":
        return f"{100 * mean:.2f} ± {100 * ci95:.2f} %"
    decimals = max(0, 1 - math.floor(math.log10(ci95))) if ci95 > 0 else 4  # two digits of the interval
    return f"{mean:.{decimals}f} ± {ci95:.{decimals}f}"


def counted(number: int, one: str, many: str = "") -> str:
    """A number with its noun: `1 step`, `3 steps`, `10 000 tasks`."""
    return f"{grouped(number)} {one if number == 1 else many or one + 's'}"


def grouped(number: int) -> str:
    """A whole number with its thousands apart."""
    return f"{number:,}".replace(",", " ")
