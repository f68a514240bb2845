"""Reads `metrics.jsonl`, the log of a run: one JSON object of numbers on each line."""

import math
import sys
import warnings
from pathlib import Path
from typing import Any

from innerloop.errors import InnerloopError
from innerloop.io.untrusted import JsonObject, is_number, parse_json, read_text

LINES = 300_000
"""The largest number of lines of `metrics.jsonl` that are read; a new run that would log more is refused."""

BYTES = LINES * 8192
"""The largest number of bytes that are read: enough for the longest log of a loss with a hundred outputs."""


def read(path: Path) -> list[JsonObject]:
    """All lines, without a last one that was cut short by a crash, with a warning.

    Raises InnerloopError if another line is invalid.
    """
    text = read_text(path, BYTES, follow=False)
    if (found := text.count("\n")) > LINES:
        raise InnerloopError(str(path), f"must have at most {LINES} lines", got=found)
    *whole, cut = text.split("\n")
    lines = list(enumerate(whole, 1))
    if cut:
        warnings.warn(
            f"innerloop: {path}: line {len(lines) + 1} was cut short, and is left out", stacklevel=2
        )
    return [checked_record(line, f"{path}, line {number}") for number, line in lines if line]


def checked_record(line: str, who: str) -> JsonObject:
    """One line of metrics. Raises InnerloopError if it is invalid."""
    record = parse_json(line, who, finite=False)
    step = record.get("step") if isinstance(record, dict) else None
    if type(step) is not int or not 0 <= step < 2**63:
        raise InnerloopError(who, "must be an object with a step", got=line[:80])
    record = {name: math.nan if value is None else value for name, value in record.items()}
    if not all(is_float(value) for name, value in record.items() if name != "broken"):
        raise InnerloopError(who, "must hold only numbers", got=line[:80])
    return record


def is_float(value: Any) -> bool:
    """Whether a JSON value is a number that fits a float; NaN and infinity count, as diverged validation gives them."""
    return is_number(value) and (isinstance(value, float) or abs(value) <= sys.float_info.max)
