"""`python -m tests.fuzz [--inputs N] [--seconds S] [--reader NAME] [--write]`: the long form of the fuzzing.

Every reader runs in processes of its own, so that a crash of compiled code is seen too. With `--write` the counts are
kept in the result file after every process, and a later call goes on behind them until there are N of each reader.
"""

import argparse
import dataclasses
import json
import subprocess
import sys

from tests.fuzz.guard import Guard
from tests.fuzz.readers import READERS
from tests.fuzz.run import fuzz
from tools.reliability_tables import load, put

BATCH = 5000
"""Inputs of one process."""


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz")
    parser.add_argument("--inputs", type=int, default=20_000)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument(
        "--seconds", type=float, default=float("inf"), help="processor time of each reader at most"
    )
    parser.add_argument("--reader", action="append", choices=sorted(READERS))
    parser.add_argument("--write", action="store_true", help="keep the counts in the result file")
    parser.add_argument("--here", action="store_true", help="in this process (what the parent starts)")
    return parser.parse_args()


def main() -> int:
    asked, sound = arguments(), True
    for reader in asked.reader or READERS:
        outcome = here(reader, asked) if asked.here else apart(reader, asked)
        print(json.dumps(outcome), flush=True)
        sound &= not outcome.get("findings")
    return 0 if sound else 1


def here(reader: str, asked: argparse.Namespace) -> dict:
    numbers = range(asked.first, asked.first + asked.inputs)
    return dataclasses.asdict(fuzz(reader, numbers, Guard(), asked.seconds))


def apart(reader: str, asked: argparse.Namespace) -> dict:
    """The inputs in processes of `BATCH` each: the libraries beneath keep a little of every input."""
    total: dict = load().get("fuzz", {}).get(reader, {}) if asked.write else {}
    spent = 0.0
    for first in range(asked.first + total.get("inputs", 0), asked.first + asked.inputs, BATCH):
        part = batch(reader, first, min(BATCH, asked.first + asked.inputs - first), asked.seconds - spent)
        total, spent = joined(total, part) if total else part, spent + part.get("seconds", 0.0)
        if asked.write:
            put("fuzz", reader, total)
        if spent >= asked.seconds or not part["inputs"]:
            break
    return total


def joined(total: dict, part: dict) -> dict:
    """The counts of two batches together."""
    counts = {name: total[name] + part[name] for name in ("inputs", "read", "refused")}
    seconds = round(total.get("seconds", 0.0) + part.get("seconds", 0.0), 1)
    megabytes = max(total.get("megabytes", 0), part.get("megabytes", 0))
    findings = total["findings"] | part["findings"]
    return {
        "reader": total["reader"],
        **counts,
        "findings": findings,
        "megabytes": megabytes,
        "seconds": seconds,
    }


def batch(reader: str, first: int, inputs: int, seconds: float) -> dict:
    """One process."""
    words = [sys.executable, "-m", "tests.fuzz", "--here", "--reader", reader, "--inputs", str(inputs)]
    words += ["--first", str(first), "--seconds", str(seconds)]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    lines = done.stdout.strip().splitlines()
    if done.returncode in (0, 1) and lines:
        return json.loads(lines[-1])
    died = f"the process died with {done.returncode}: {done.stderr[-300:]}"
    return {"reader": reader, "inputs": 0, "read": 0, "refused": 0, "findings": {died: [-1]}}


if __name__ == "__main__":
    sys.exit(main())
