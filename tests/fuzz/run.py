"""Feed one reader with numbered hostile inputs, and count what came of them."""

import random
import resource
import time
import traceback
import warnings
from dataclasses import dataclass, field
from pathlib import Path

from tests.fuzz.guard import Guard, TooLong, sandbox
from tests.fuzz.readers import READERS, Attempt

from innerloop.errors import InnerloopError

MEMORY = 1 << 30
"""Bytes by which a reader may enlarge the process at most."""


@dataclass
class Outcome:
    """What a reader did with its inputs."""

    reader: str
    inputs: int = 0
    read: int = 0
    refused: int = 0
    findings: dict[str, list[int]] = field(default_factory=dict)
    megabytes: int = 0
    seconds: float = 0.0

    def found(self, what: str, number: int) -> None:
        """Note a finding, with the first few inputs that lead to it."""
        self.findings[what] = [*self.findings.get(what, []), number][:5]


def peak() -> int:
    """The most memory that this process ever held, in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def fuzz(reader: str, inputs: range, guard: Guard, seconds: float = float("inf")) -> Outcome:
    """Try the numbered inputs of a reader, for so many seconds of processor time at most."""
    outcome, begun = Outcome(reader), time.process_time()
    with sandbox() as folder:
        attempt = READERS[reader](folder)
        attempt_one(attempt, -1, outcome, guard, folder)  # loads what is loaded on first use
        outcome.inputs = outcome.read = outcome.refused = 0
        before = peak()
        for number in inputs:
            attempt_one(attempt, number, outcome, guard, folder)
            if time.process_time() - begun > seconds:
                break
        outcome.megabytes = (peak() - before) >> 20
    if outcome.megabytes << 20 > MEMORY:
        outcome.found(f"memory grew by {outcome.megabytes} MB", -1)
    outcome.seconds = round(time.process_time() - begun, 1)
    return outcome


def attempt_one(attempt: Attempt, number: int, outcome: Outcome, guard: Guard, folder: Path) -> None:
    """One input."""
    outcome.inputs += 1
    draw = random.Random(f"{outcome.reader} {number}")
    with guard.watching(folder) as seen:
        try:
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", "innerloop: ")  # they tell what was left out
                attempt(draw)
            outcome.read += 1
        except InnerloopError:
            outcome.refused += 1
        except (Exception, TooLong) as finding:
            outcome.found(described(finding), number)
    if seen:
        outcome.found(f"did {seen[0]}", number)


def described(finding: BaseException) -> str:
    """Kind and place: the same finding is counted once however many inputs lead to it."""
    frames = [f for f in traceback.extract_tb(finding.__traceback__) if "innerloop/" in f.filename]
    where = f" at {frames[-1].filename.split('innerloop/')[-1]}:{frames[-1].lineno}" if frames else ""
    return f"{type(finding).__name__}{where}"
