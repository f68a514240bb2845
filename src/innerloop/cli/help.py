"""Help texts of tyro, wrapped to the terminal."""

import io
import re
import shutil
import sys
import textwrap
from collections.abc import Callable
from dataclasses import replace

from tyro.constructors import (
    ConstructorRegistry,
    PrimitiveConstructorSpec,
    PrimitiveTypeInfo,
    StructConstructorSpec,
    StructTypeInfo,
)

RULES = ConstructorRegistry()
"""How our help differs from tyro's own."""

HelpText = str | Callable[[], str | None] | None


class _Seen:
    """Marks a class that is asked about again, for the answer of tyro's own rules."""


@RULES.struct_rule
def _without_line_breaks(info: StructTypeInfo) -> StructConstructorSpec | None:
    """The fields of a class with their docstrings as one line each: tyro keeps the breaks of indented ones."""
    if _Seen in info.markers:
        return None
    spec = ConstructorRegistry.get_struct_spec(replace(info, markers=(*info.markers, _Seen)))
    if not isinstance(spec, StructConstructorSpec):
        return None
    return replace(spec, fields=tuple(replace(f, helptext=_one_line(f.helptext)) for f in spec.fields))


def _one_line(text: HelpText) -> Callable[[], str | None]:
    """A help text in one line, read only when it is shown."""

    def read() -> str | None:
        found = text() if callable(text) else text
        return found and " ".join(found.split())

    return read


@RULES.primitive_rule
def _none(info: PrimitiveTypeInfo) -> PrimitiveConstructorSpec[None] | None:
    """None as a value, without the braces of tyro's `{None}|INT`."""
    if info.type is not type(None):
        return None
    return PrimitiveConstructorSpec(
        nargs=1,
        metavar="None",
        choices=("None",),
        instance_from_str=lambda words: None,
        is_instance=lambda value: value is None,
        str_from_instance=lambda value: ["None"],
    )


class Capture(io.StringIO):
    """Collects what is printed, formatted as for the standard output that it stands in for."""

    def __init__(self) -> None:
        super().__init__()
        self._stream = sys.stdout

    @property
    def encoding(self) -> str | None:  # pyright: ignore[reportIncompatibleVariableOverride]
        """The encoding of the stream, which decides how boxes are drawn."""
        return self._stream.encoding

    def isatty(self) -> bool:
        """Whether the stream is a terminal, which shows colours."""
        return self._stream.isatty()


def wrapped(text: str) -> str:
    """A help text whose paragraphs above the first box are wrapped to the terminal."""
    box = re.search(r"^(?:\S*╭|.*\n\S* ----)", text, re.MULTILINE)  # the title of a box, framed or in ASCII
    if box is None:
        return text
    width = max(40, shutil.get_terminal_size().columns)  # as tyro's boxes
    fill = lambda words: textwrap.fill(words, width, break_long_words=False, break_on_hyphens=False)
    paragraphs = text[: box.start()].rstrip("\n").split("\n\n")
    return "\n\n".join(map(fill, paragraphs)) + "\n\n" + text[box.start() :]
