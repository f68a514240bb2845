"""Untrusted data as text that is safe to show: names of files, classes and runs, cells of tables.

A terminal obeys control characters, and a spreadsheet evaluates text that looks like a formula.
"""

import csv
import io
import json
import math
import shlex
import unicodedata
from collections.abc import Iterable, Mapping, Sequence

LIMIT = 2000
"""The largest number of characters in a sentence."""

TURNING = frozenset("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
"""Characters that change the writing direction, so that one name can look like another."""

HIDDEN = ("Cc", "Cs", "Zl", "Zp")
"""Unicode categories of control characters, of surrogates (bytes that were not UTF-8), and of line breaks."""


def printable(text: str, limit: int | None = None) -> str:
    r"""The text with control characters escaped (`\x1b`), shortened in the middle if longer than `limit`."""
    if limit is not None and len(text) > limit:
        text = f"{text[: limit * 3 // 4]} ... {text[-(limit // 4) :]}"
    return text if text.isascii() and text.isprintable() else "".join(map(_visible, text))


def _visible(character: str) -> str:
    """One character, or its escape."""
    if character in TURNING or unicodedata.category(character) in HIDDEN:
        return character.encode("unicode_escape").decode("ascii")
    return character


def shown(value: object, limit: int = 80) -> str:
    """A value for the `got` of an error, shortened."""
    try:
        return printable(str(value), limit)
    except ValueError:  # Python does not print integers of more than 4300 digits
        return "a number of thousands of digits"


def csv_cell(value: object) -> object:
    """A value for a CSV file: text that a spreadsheet would take for a formula gets an apostrophe in front."""
    if not isinstance(value, str):
        return value
    text = printable(value)
    return f"'{text}" if text.startswith(("=", "+", "-", "@")) else text


def csv_text(names: Sequence[str], rows: Iterable[Mapping[str, object]]) -> str:
    """A CSV file with these columns; an entry that a row lacks is empty."""
    text = io.StringIO()
    writer = csv.DictWriter(text, names, lineterminator="\n")
    writer.writeheader()
    writer.writerows({name: csv_cell(value) for name, value in row.items()} for row in rows)
    return text.getvalue()


def as_json(value: object, indent: int | None = None) -> str:
    """Standard JSON: NaN and infinity become null."""
    return json.dumps(_finite(value), indent=indent, allow_nan=False)


def _finite(value: object) -> object:
    """The value with None for NaN and infinity."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {name: _finite(x) for name, x in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(x) for x in value]
    return value


def with_interval(mean: float, ci95: float, name: str) -> str:
    """A mean with its 95 % confidence interval: accuracies in percent, losses as they are."""
    if name == "accuracy":
        return f"{100 * mean:.2f} ± {100 * ci95:.2f} %"
    # Two digits of the interval.
    decimals = max(0, 1 - math.floor(math.log10(ci95))) if 0 < ci95 < math.inf else 4
    return f"{mean:.{decimals}f} ± {ci95:.{decimals}f}"


def diverged(many: int, tasks: int) -> str:
    """How many tasks of a measurement diverged, in words; empty if none did."""
    return f"{grouped(many)} of {counted(tasks, 'task')} diverged" if many else ""


def broken(many: int) -> str:
    """How many trajectories of a measurement broke, in words; empty if none did."""
    return (
        f"{counted(many, 'trajectory', 'trajectories')} broke, and the means leave them out" if many else ""
    )


def first_repeated(names: Iterable[str]) -> str | None:
    """The first name that occurred before; None if all differ."""
    seen: set[str] = set()
    for name in names:
        if name in seen:
            return name
        seen.add(name)
    return None


def shell_command(*words: object) -> str:
    """A command of ours to copy into a shell: `innerloop report 'my runs/a'`."""
    return shlex.join(map(str, ("innerloop", *words)))


def listed(names: Sequence[str], maximum: int) -> str:
    """The first `maximum` names, with dots for the others: `a, b, ...`."""
    return ", ".join(names[:maximum]) + (", ..." if len(names) > maximum else "")


def counted(number: int, one: str, many: str = "") -> str:
    """A number with its noun: `1 step`, `3 steps`, `10 000 tasks`."""
    return f"{grouped(number)} {one if number == 1 else many or one + 's'}"


def grouped(number: int) -> str:
    """A whole number with spaces between thousands."""
    return f"{number:,}".replace(",", " ")
