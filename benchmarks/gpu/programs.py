"""Our programs of all workloads: a process each, compiled side by side before anything is timed."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.gpu.cases import Case
from benchmarks.gpu.clock import Clock
from benchmarks.gpu.worker import OURS, Worker
from benchmarks.speed.process import ContenderError

GIGABYTES_EACH = 4
"""Memory of the host that one compiling process may take."""

SHARE = 0.6
"""Of the time, at most, before what is compiled is timed."""


class Name(NamedTuple):
    """Which program: of a workload, with products of a precision, and how it convolves."""

    workload: str
    precision: str
    convolution: str

    def __str__(self) -> str:
        return "-".join(self)


def at_once() -> int:
    """Processes that compile side by side: as many as there are cores, and memory for."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") if hasattr(os, "sysconf") else 0
    return max(1, min(os.cpu_count() or 1, memory // (GIGABYTES_EACH << 30)))


class Programs:
    """One worker for every program."""

    def __init__(self, names: dict[Name, Case], folder: Path, clock: Clock, dry: bool):
        self.cases, self.folder, self.clock = names, folder, clock
        self.workers = {name: Worker(OURS, folder, clock, dry, label=str(name)) for name in names}
        self.made: dict[Name, dict[str, Any]] = {}
        self.failed: dict[Name, str] = {}

    def problem(self, name: Name) -> str:
        """The file of the weights and tasks of a workload, written by its first program."""
        return str(self.folder / f"{name.workload}-problem.npz")

    def compile(self) -> None:
        """Compile all of them in a share of the time; what fails is kept with its reason."""
        self.clock.take(SHARE)
        waiting = sorted(self.cases, key=lambda name: -self.cases[name].weight)
        size = at_once()
        for start in range(0, len(waiting), size):
            self._compile(waiting[start : start + size])

    def _compile(self, some: Sequence[Name]) -> None:
        """These, side by side."""
        for name in some:
            values = {"precision": name.precision, "convolution": name.convolution}
            workload = self.cases[name].workload.as_dict()
            self._try(name, lambda n=name, w=workload, v=values: self._send(n, w, v))
        for name in some:
            if name not in self.failed:
                self._try(name, lambda n=name: self.made.update({n: self.workers[n].receive(True)}))

    def _send(self, name: Name, workload: dict[str, Any], values: dict[str, str]) -> None:
        self.workers[name].send("load", workload=workload, problem=self.problem(name), **values)

    def _try(self, name: Name, act: Any) -> None:
        """Do it, or keep why not."""
        try:
            act()
        except ContenderError as error:
            self.failed[name] = str(error)

    def close(self) -> None:
        """End all processes."""
        for worker in self.workers.values():
            worker.close()
