"""Standard streams that accept any text, whatever their encoding, and even if they are closed."""

import io
import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

from innerloop.io.text import LIMIT, printable


@contextmanager
def prepared() -> Iterator[None]:
    """Make streams accept any character, and print warnings as sentences."""
    _open_closed()
    _forget_odd_sizes()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # for what a latin-1 or ASCII terminal cannot show
    kept, warnings.formatwarning = warnings.formatwarning, _in_a_sentence
    try:
        yield
    finally:
        warnings.formatwarning = kept


WIDEST = 1000
"""The largest plausible size of a terminal, in characters per line and in lines."""


def _forget_odd_sizes() -> None:
    """Drop an implausible terminal size: rich would fail, or fill lines of gigabytes."""
    for name in ("COLUMNS", "LINES"):
        size = os.environ.get(name, "")
        if not (size.isascii() and size.isdigit() and len(size) < 5 and 0 < int(size) <= WIDEST):
            os.environ.pop(name, None)


def _open_closed() -> None:
    """Open closed streams as the null device: else the next file gets their number, and our output."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # gets the lowest free number
    for name, number in (("stdout", 1), ("stderr", 2)):
        if getattr(sys, name) is None:
            setattr(sys, name, open(number, "w", encoding="utf-8", closefd=False))  # noqa: SIM115 (stays open)


def _in_a_sentence(message: object, *where: object) -> str:
    """A warning without the line of code that raised it."""
    return f"{printable(str(message), LIMIT)}\n"
