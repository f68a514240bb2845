"""Run one workload: start the contenders, check the peers' meta-gradients, then time all in turn.

All processes exist at the same time and wait while another computes, so that other load affects all alike.
"""

import math
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.speed.process import OURS, ContenderError, ContenderProcess, command
from benchmarks.speed.summary import record
from benchmarks.speed.workloads import Workload

TOLERANCE = 1e-2
"""Largest relative error of a peer's meta-gradient in float32. If rounding puts a unit on the other side of a kink
(ReLU, pooling), correct gradients differ by thousandths; a wrong second order is off by several percent."""
DOUBLE_TOLERANCE = 1e-6
"""The same in float64, for cases that float32 cannot decide: after several steps through kinks, correct float32
gradients also differ by several percent."""
SLICE = 0.1
"""Shortest turn of a contender, in seconds."""
FAR = 2.0
"""A peer slower than the fastest by more than this factor is timed only once."""

Tell = Callable[[str], None]


class Race:
    """The contenders of one workload, and a folder for the files that they exchange."""

    def __init__(self, workload: Workload, folder: Path, tell: Tell):
        self.w, self.folder, self.tell = workload, folder, tell
        self.refused: dict[str, str] = {}
        self.errors: dict[str, float] = {}
        self.times: dict[str, list[float]] = {}
        self.cpu: dict[str, list[float]] = {}
        self.peaks: list[float] = []
        self.estimates: dict[str, float] = {}
        self.whole: dict[str, float] = {}
        self.facts: dict[str, Any] = {}
        names = (OURS, *workload.peers)
        self.contenders = {
            name: ContenderProcess(name, command(name, workload.threads), folder / f"{name}.log")
            for name in names
        }

    def run(self, seconds: float, minimum: int) -> dict[str, Any]:
        """Run the whole race and return its record. Raises ContenderError if ours fails."""
        try:
            self.prepare()
            self.alternate(seconds, minimum)
        finally:
            memory = {
                name: (contender.peak_mb, max(contender.peak_mb, self.whole.get(name, 0.0)))
                for name, contender in self.contenders.items()
            }
            for contender in self.contenders.values():
                contender.close()
        return record(self.w, self.times, self.cpu, memory, self.peaks, self.errors, self.refused, self.facts)

    def prepare(self) -> None:
        """Load ours, which writes the problem, then load every peer and check its gradient."""
        for name in list(self.contenders):
            self.attempt(name, lambda one: one.ask("ready"))
        self.tell("compiling ours")
        ours, problem = self.contenders[OURS], str(self.folder / "problem.npz")
        loaded = ours.ask("load", workload=self.w.as_dict(), problem=problem)
        self.facts = {"compile_s": loaded["compile_s"], "versions": loaded["versions"]}
        for name in [name for name in self.contenders if name != OURS]:
            self.tell(f"checking {name}")
            self.attempt(name, lambda one: self.load_peer(one, problem))
        if self.w.kind == "training":
            for name in list(self.contenders)[:2]:
                self.attempt(name, lambda one: self.peaks.append(one.ask("peak")["gflops"]))

    def attempt(self, name: str, act: Callable[[ContenderProcess], Any]) -> Any:
        """Call `act` on a contender; a peer that fails leaves the race, and the reason is recorded."""
        try:
            return act(self.contenders[name])
        except ContenderError as error:
            if name == OURS:
                raise
            self.refused[name] = str(error)
            self.contenders.pop(name).close()

    def load_peer(self, peer: ContenderProcess, problem: str) -> None:
        """Give a peer the problem and compare its meta-gradient with ours."""
        loaded = peer.ask("load", workload=self.w.as_dict(), problem=problem)
        self.facts["versions"] = {**self.facts["versions"], **loaded["versions"]}
        if self.w.kind != "training":
            return
        start = time.monotonic()
        error = self.apart(peer, double=False)
        self.estimates[peer.name] = time.monotonic() - start  # also its warm-up
        if not error < TOLERANCE:
            self.tell(f"checking {peer.name} in double precision")
            error = self.apart(peer, double=True)
            self.facts.setdefault("checked_in_double", []).append(peer.name)
            if not error < DOUBLE_TOLERANCE:
                raise ContenderError(f"wrong meta-gradient: relative error {error:.2g}")
        self.errors[peer.name] = error

    def apart(self, peer: ContenderProcess, double: bool) -> float:
        """Relative error of a peer's first meta-gradient."""
        found = {}
        for one in (self.contenders[OURS], peer):
            found[one.name] = str(self.folder / f"gradient-{one.name}{'-double' * double}.npz")
            one.ask("gradient", path=found[one.name], double=double)
        return relative_error(found[peer.name], found[OURS])

    def alternate(self, seconds: float, minimum: int) -> None:
        """Time all contenders in turn, for about `seconds` seconds but at least `minimum` rounds."""
        for name in [name for name in self.contenders if name not in self.estimates]:
            self.estimates[name] = self.attempt(name, lambda one: self.timed(one, 1)) or math.inf  # warm-up
        self.whole = {name: contender.peak_mb for name, contender in self.contenders.items()}
        for name in list(self.contenders):
            self.attempt(name, lambda one: one.ask("forget_peak"))
        start, rounds = time.monotonic(), 0
        while rounds < minimum or (time.monotonic() - start) * (rounds + 1) / rounds < seconds:
            for name in [name for name in self.contenders if rounds == 0 or name not in self.far_behind()]:
                count = max(1, round(SLICE / self.estimates[name]))
                taken = self.attempt(name, lambda one, count=count: self.timed(one, count))
                if taken is not None:
                    self.times.setdefault(name, []).append(taken)
            rounds += 1
            self.tell(f"round {rounds}, {time.monotonic() - start:.0f} of {seconds:.0f} s")

    def far_behind(self) -> set[str]:
        """The peers too slow to become the fastest, for which one turn is enough."""
        peers = {name: min(turns) for name, turns in self.times.items() if name != OURS}
        return {name for name, best in peers.items() if best > FAR * min(peers.values())}

    def timed(self, contender: ContenderProcess, count: int) -> float:
        """Seconds per meta-step over at least `count` of them."""
        if contender.name == OURS:
            count = -(-count // self.w.per_dispatch) * self.w.per_dispatch
        answer = contender.ask("steps", count=count)
        self.cpu.setdefault(contender.name, []).append(answer["cpu_s"] / count)
        return answer["seconds"] / count


def relative_error(path: str, reference: str) -> float:
    """Distance between two gradients over the norm of the second."""
    with np.load(path) as a, np.load(reference) as b:
        if set(a.files) != set(b.files):
            raise ContenderError("its gradient has different parameters from ours")
        apart = sum(float(np.sum((a[name].astype(np.float64) - b[name]) ** 2)) for name in b.files)
        size = sum(float(np.sum(b[name].astype(np.float64) ** 2)) for name in b.files)
    return (apart / size) ** 0.5


def race(workload: Workload, seconds: float, minimum: int, tell: Tell) -> dict[str, Any]:
    """Run one workload with all its contenders for at least `minimum` rounds, and return its record."""
    with tempfile.TemporaryDirectory(prefix="innerloop-bench-") as folder:
        return Race(workload, Path(folder), tell).run(seconds, minimum)
