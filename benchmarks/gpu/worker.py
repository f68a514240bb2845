"""The driver's side of a worker process, which is restarted after a failure."""

import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.gpu.clock import Clock
from benchmarks.speed.process import ContenderError, ContenderProcess, peers_python

OURS, REFERENCE, TORCH = "ours", "reference", "torch"


def command(name: str, dry: bool) -> list[str]:
    """A worker's command line; PyTorch runs in the peers' environment if there is one."""
    cores = str(os.cpu_count() or 1)
    if name == TORCH:
        python = peers_python() if peers_python().exists() else Path(sys.executable)
        return [str(python), "-m", "benchmarks.gpu.torch_worker", cores]
    path = ["as-a-gpu"] if dry and name == OURS else []
    return [sys.executable, "-m", "benchmarks.gpu.ours_worker", cores, *path]


def settings(name: str, dry: bool) -> Mapping[str, str]:
    """A worker's environment variables: GPU memory is shared, and the reference stays on the CPU."""
    if dry:
        return {"JAX_PLATFORMS": "cpu", "JAX_DISABLE_MOST_OPTIMIZATIONS": "1"}
    return {"JAX_PLATFORMS": "cpu"} if name == REFERENCE else {"XLA_PYTHON_CLIENT_PREALLOCATE": "false"}


class Worker:
    """A named process, started at the first request."""

    def __init__(self, name: str, folder: Path, clock: Clock, dry: bool, label: str = ""):
        self.name, self.clock, self.dry = name, clock, dry
        self.log = folder / f"{name}-{label}.log"
        self.process: ContenderProcess | None = None

    def ask(self, hint: str, **values: Any) -> dict[str, Any]:
        """Send a request and return the answer. Raises ContenderError, also on timeout; `ask` again to restart."""
        self.send(hint, **values)
        return self.receive()

    def send(self, hint: str, **values: Any) -> None:
        """Send a request. Raises ContenderError like `ask`."""
        if self.process is None:
            self.process = ContenderProcess(
                self.name, command(self.name, self.dry), self.log, settings(self.name, self.dry)
            )
        try:
            self.process.send(hint, **values)
        except ContenderError:
            self.close()
            raise

    def receive(self, patience: float | None = None) -> dict[str, Any]:
        """Return the answer within `patience` seconds (None: the remaining time). Raises ContenderError like `ask`."""
        if self.process is None:
            raise ContenderError("was sent no request")
        try:
            return self.process.receive(
                self.clock.left if patience is None else min(patience, self.clock.left)
            )
        except ContenderError:
            self.close()
            raise

    def close(self) -> None:
        """Kill the process at once; its work is no longer needed."""
        if self.process is not None:
            self.process.process.kill()
            self.process.close()
            self.process = None
