"""What a run logs: its training time, and `metrics.jsonl`, with one JSON object of numbers on each line."""

import json
import math
import os
import sys
import warnings
from pathlib import Path
from typing import Any

from innerloop.errors import InnerloopError
from innerloop.io.folders import OwnFolder
from innerloop.io.text import as_json
from innerloop.io.untrusted import JsonObject, is_number, parse_json, read_object, read_text
from innerloop.training.storage.run_file import RunFile

LINES = 300_000
"""The largest number of lines of `metrics.jsonl` that are read; a new run that would log more is refused."""

BYTES = LINES * 8192
"""The largest number of bytes that are read: enough for the longest log of a loss with a hundred outputs."""


class RunLog(OwnFolder):
    """The log in a run's folder."""

    def seconds(self) -> float:
        """Training time so far, including that before it was resumed."""
        path = self.path / RunFile.CLOCK
        seconds: Any = read_object(path, follow=False).get("seconds") if os.path.lexists(path) else 0.0
        if not is_number(seconds) or not 0 <= seconds < 1e12:
            raise InnerloopError(
                str(path), "must hold seconds", got=repr(seconds)[:80], hint="remove the file"
            )
        return float(seconds)

    def write_seconds(self, seconds: float) -> None:
        """Record the training time."""
        self.write(RunFile.CLOCK, json.dumps({"seconds": round(seconds, 1)}) + "\n")

    def log(self, record: JsonObject) -> None:
        """Append one line of metrics."""
        with self.appending(RunFile.METRICS) as file:
            file.write(as_json(record) + "\n")

    def block_record(self) -> JsonObject:
        """The log of a block in the middle of which the state was saved; empty if there is none."""
        path = self.path / RunFile.BLOCK
        return read_object(path, follow=False) if os.path.lexists(path) else {}

    def metrics(self) -> list[JsonObject]:
        """All lines of metrics, without a last line that was cut short by a crash, with a warning.

        Raises InnerloopError for any other line that is not a JSON object of numbers with a step.
        """
        path = self.path / RunFile.METRICS
        return read(path) if os.path.lexists(path) else []

    def rewind(self, step: int) -> None:
        """Discard metrics after `step`, and those of a block that `step` is in the middle of: they are logged again."""
        first = step if self.block_record().get("step") == step else step + 1
        kept = [record for record in self.metrics() if record["step"] < first]
        self.write(RunFile.METRICS, "".join(as_json(r) + "\n" for r in kept))


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
