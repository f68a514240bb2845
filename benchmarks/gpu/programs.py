"""Our programs, one process each. Those of a round compile in parallel and are then timed in turn."""

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.gpu.cases import Case
from benchmarks.gpu.clock import Clock
from benchmarks.gpu.worker import OURS, Worker
from benchmarks.speed.process import ContenderError


class Name(NamedTuple):
    """Identifies a program by workload, precision and convolution."""

    workload: str
    precision: str
    convolution: str

    def __str__(self) -> str:
        return "-".join(self)


def rounds(case: Case, facts: dict[str, Any]) -> list[Name]:
    """A workload's program in every round: each precision, then float32 with the other convolution.

    A round has one program per workload. More at once would disturb each other, because compilation times products on
    the GPU. The least important programs come last, in case the time runs out.
    """
    found = [Name(case.workload.name, p, facts["convolution"]) for p in facts["precisions"]]
    if case.workload.image and facts["platform"] == "gpu":
        other = {"patches": "pallas", "pallas": "patches"}[facts["convolution"]]
        found.append(Name(case.workload.name, "float32", other))
    return found


class Programs:
    """The processes of a round, and the results of all programs."""

    def __init__(self, folder: Path, clock: Clock, dry: bool):
        self.folder, self.clock, self.dry = folder, clock, dry
        self.workers: dict[Name, Worker] = {}
        self.made: dict[Name, dict[str, Any]] = {}
        self.failed: dict[Name, ContenderError] = {}

    def problem(self, workload: str) -> str:
        """The file with a workload's weights and tasks, which its float32 program writes."""
        return str(self.folder / f"{workload}-problem.npz")

    def compile(self, some: Sequence[tuple[Name, Case]], patience: float) -> None:
        """Compile these in parallel within `patience` seconds, and record those that fail."""
        end = time.monotonic() + patience
        for name, case in some:
            self.workers[name] = Worker(OURS, self.folder, self.clock, self.dry, label=str(name))
            self._try(name, lambda n=name, c=case: self._send(n, c))
        for name, _ in some:
            if name not in self.failed:
                self._try(name, lambda n=name: self._receive(n, end - time.monotonic()))

    def _send(self, name: Name, case: Case) -> None:
        kinds = {"precision": name.precision, "convolution": name.convolution}
        problem = self.problem(name.workload)
        self.workers[name].send("load", workload=case.workload.as_dict(), problem=problem, **kinds)

    def _receive(self, name: Name, patience: float) -> None:
        self.made[name] = self.workers[name].receive(max(0.0, patience))

    def _try(self, name: Name, act: Callable[[], None]) -> None:
        """Call `act`, and record the error if it fails."""
        try:
            act()
        except ContenderError as error:
            self.failed[name] = error

    def close(self) -> None:
        """End the processes of this round."""
        for worker in self.workers.values():
            worker.close()
        self.workers.clear()
