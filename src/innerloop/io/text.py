"""Data as text that is safe to show, wherever it comes from: names of files, classes and runs, cells of tables.

A terminal obeys control characters, and a spreadsheet runs what begins like a formula.
"""

import json
import math
import unicodedata

LIMIT = 2000
"""Characters of a sentence."""

TURNING = frozenset("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
"""They change the direction of writing, so that a name looks like another one."""

HIDDEN = ("Cc", "Cs", "Zl", "Zp")
"""Unicode's categories of control characters, of bytes that were no UTF-8, and of breaks between lines."""


def printable(text: str, limit: int | None = None) -> str:
    r"""The text with control characters as escapes (`\x1b`), cut in the middle beyond `limit` characters."""
    if limit is not None and len(text) > limit:
        text = f"{text[: limit * 3 // 4]} ... {text[-(limit // 4) :]}"
    return text if text.isascii() and text.isprintable() else "".join(map(_visible, text))


def _visible(character: str) -> str:
    """One character, or its escape."""
    if character in TURNING or unicodedata.category(character) in HIDDEN:
        return character.encode("unicode_escape").decode("ascii")
    return character


def shown(value: object, limit: int = 80) -> str:
    """A value for an error's `got`, cut to a few words."""
    try:
        return printable(str(value), limit)
    except ValueError:  # Python writes no whole number of more than 4300 digits
        return "a number of thousands of digits"


def csv_cell(value: object) -> object:
    """A value for a CSV file: text that a spreadsheet would take for a formula is quoted by an apostrophe."""
    if not isinstance(value, str):
        return value
    text = printable(value)
    return f"'{text}" if text.startswith(("=", "+", "-", "@")) else text


def as_json(value: object, indent: int | None = None) -> str:
    """JSON as the standard has it: what is no finite number becomes null."""
    return json.dumps(_finite(value), indent=indent, allow_nan=False)


def _finite(value: object) -> object:
    """The same with None for NaN and infinities."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {name: _finite(x) for name, x in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(x) for x in value]
    return value


def with_interval(mean: float, ci95: float, name: str) -> str:
    """A mean with its 95 % interval: accuracies in percent, losses as they are."""
    if name == "accuracy":
        return f"{100 * mean:.2f} ± {100 * ci95:.2f} %"
    decimals = (
        max(0, 1 - math.floor(math.log10(ci95))) if 0 < ci95 < math.inf else 4
    )  # two digits of the interval
    return f"{mean:.{decimals}f} ± {ci95:.{decimals}f}"


def diverged(many: int, tasks: int) -> str:
    """In words, how many tasks of a measurement diverged; empty if none did."""
    return f"{grouped(many)} of {counted(tasks, 'task')} diverged" if many else ""


def counted(number: int, one: str, many: str = "") -> str:
    """A number with its noun: `1 step`, `3 steps`, `10 000 tasks`."""
    return f"{grouped(number)} {one if number == 1 else many or one + 's'}"


def grouped(number: int) -> str:
    """A whole number with its thousands apart."""
    return f"{number:,}".replace(",", " ")
