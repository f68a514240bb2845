"""The driver's side of a contender's process."""

import json
import os
import select
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
OURS = "ours"
PATIENCE = 1200.0
"""Seconds to wait for a contender's answer."""


class ContenderError(Exception):
    """A contender failed to do what it was asked."""


class NoAnswerError(ContenderError):
    """A contender did not answer in time."""


def peers_python() -> Path:
    """The Python of the peers' environment."""
    return ROOT / ".venv-bench" / "bin" / "python"


def command(name: str, threads: int) -> list[str]:
    """A contender's command line."""
    if name == OURS:
        return [sys.executable, "-m", "benchmarks.speed.innerloop_worker", str(threads)]
    return [str(peers_python()), "-m", "benchmarks.speed.peers", name, str(threads)]


ON_A_CPU = {"JAX_PLATFORMS": "cpu"}


class ContenderProcess:
    """One long-lived process that answers requests in turn."""

    def __init__(self, name: str, argv: list[str], log: Path, settings: Mapping[str, str] = ON_A_CPU):
        self.name, self.log, self.peak_mb = name, log, 0.0
        self.asked = ""
        with open(log, "w") as errors:
            self.process = subprocess.Popen(
                argv,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                cwd=ROOT,
                # Without the compilation cache, which would hide the compile time.
                env={**os.environ, "JAX_ENABLE_COMPILATION_CACHE": "false", **settings},
            )

    def ask(self, hint: str, **values: Any) -> dict[str, Any]:
        """Send a request and return the answer. Raises ContenderError for an error, a dead process or no answer."""
        self.send(hint, **values)
        return self.receive(PATIENCE)

    def send(self, hint: str, **values: Any) -> None:
        """Send a request; `receive` waits for the answer. Raises ContenderError for a dead process."""
        assert self.process.stdin is not None
        self.asked = hint
        try:
            self.process.stdin.write(json.dumps({"do": hint, **values}).encode() + b"\n")
            self.process.stdin.flush()
        except BrokenPipeError:
            raise ContenderError(self.ended()) from None

    def receive(self, patience: float) -> dict[str, Any]:
        """Return the answer within `patience` seconds. Raises ContenderError like `ask`."""
        assert self.process.stdout is not None
        if not select.select([self.process.stdout], [], [], patience)[0]:
            self.process.kill()
            raise NoAnswerError(f"gave no answer to {self.asked!r} in {patience:.0f} s")
        line = self.process.stdout.readline()
        if not line:
            raise ContenderError(self.ended())
        answer = json.loads(line)
        self.peak_mb = answer["peak_mb"]
        if "error" in answer:
            raise ContenderError(answer["error"])
        return answer

    def ended(self) -> str:
        """The exit code and the last log line of a process that has ended."""
        code = self.process.wait()
        last = self.log.read_text(errors="replace").strip().splitlines()[-1:]
        return f"the process ended with {code}" + (f" ({last[0][:200]})" if last else "")

    def close(self) -> None:
        """End the process."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        try:
            self.process.stdin.close()
            self.process.wait(timeout=10)
        except (subprocess.TimeoutExpired, BrokenPipeError):
            self.process.kill()
            self.process.wait()
        self.process.stdout.close()
