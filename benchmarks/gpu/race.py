"""One workload on a GPU: ours in every precision, then PyTorch, each checked against a reference."""

import math
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.gpu.cases import METHODS, Case
from benchmarks.gpu.clock import Clock
from benchmarks.gpu.programs import Name, Programs, rounds
from benchmarks.gpu.roofline import roofline
from benchmarks.gpu.worker import REFERENCE, TORCH, Worker
from benchmarks.speed import flops
from benchmarks.speed.process import ContenderError, NoAnswerError
from benchmarks.speed.runner import DOUBLE_TOLERANCE, TOLERANCE, relative_error

LEAST, MOST = 5, 50
"""Fewest and most repeats, of which the median is taken."""
SECONDS = 1.0
"""Approximate total of one contender's repeats."""
TURN = 0.05
"""Shortest repeat of PyTorch, in seconds."""
PEER_PRECISIONS = ("float32", "tf32")
OUT_OF_TIME = "no time was left"

Tell = Callable[[str], None]


class GpuRace:
    """All contenders of one workload."""

    def __init__(
        self, case: Case, programs: Programs, torch: Worker, facts: dict[str, Any], clock: Clock, tell: Tell
    ):
        self.case, self.w, self.programs, self.torch = case, case.workload, programs, torch
        self.facts, self.clock, self.tell, self.folder = facts, clock, tell, programs.folder
        self.rounds = rounds(case, facts)
        self.reference = Worker(REFERENCE, self.folder, clock, torch.dry, label=self.w.name)
        self.failed = ""
        self.runs: list[dict[str, Any]] = []
        self.left_out: dict[str, str] = {}

    @property
    def record(self) -> dict[str, Any]:
        """The results so far."""
        shape = {"workload": self.w.name, "tasks": self.w.tasks, "inner_steps": self.w.steps}
        dispatch = {"per_dispatch": self.w.per_dispatch, "operations": flops.meta_step(self.w)}
        return {**shape, **dispatch, "runs": self.runs, "left_out": self.left_out}

    def race_ours(self, number: int) -> None:
        """Time our program of a round. The workload fails if the first one fails for any reason but a timeout."""
        if number < len(self.rounds):
            name = self.rounds[number]
            self.attempt(
                f"innerloop {name.precision}, {name.convolution}", lambda: self.ours(name), not number
            )
        if not number:
            self.attempt("float64", self.begin_reference)

    def race_peers(self) -> None:
        """Check and time PyTorch."""
        for method in METHODS if self.facts[TORCH] else ():
            for graph in (True, False):
                name = f"{method}, CUDA graph" if graph else method
                self.attempt(name, lambda n=name, m=method, g=graph: self.peer(n, m, g))

    def attempt(self, name: str, act: Callable[[], None], needed: bool = False) -> None:
        """Call `act` if there is time; if it fails, leave it out and record the reason."""
        if name in self.left_out:
            return
        if not self.clock.turn_left:
            self.left_out[name] = OUT_OF_TIME
            return
        self.tell(name)
        try:
            act()
        except ContenderError as error:
            if needed and not isinstance(error, NoAnswerError):
                self.failed = str(error)
            self.left_out[name] = str(error)

    def path(self, name: object) -> str:
        """The path of a file that contenders exchange."""
        return str(self.folder / f"{self.w.name}-{name}.npz".replace(" ", "-"))

    def ours(self, name: Name) -> None:
        """Save a program's first meta-gradient, and time it."""
        if name in self.programs.failed:
            raise self.programs.failed[name]
        ours, made = self.programs.workers[name], self.programs.made[name]
        ours.ask("steps", count=self.w.per_dispatch)
        ours.ask("gradient", path=self.path(name))
        times = self.repeated(ours, self.w.per_dispatch)
        # A compiled program hides the products inside Pallas kernels, so count them from the workload's shapes.
        cost = {**made["cost"], "operations": flops.meta_step(self.w)}
        facts = {"compile_s": made["compile_s"], "memory_mb": made["memory_mb"], "cost": cost}
        minimum = roofline(cost, name.precision, self.facts["rates"], median(times))
        run = {**timed("innerloop", name.precision, times), "convolution": name.convolution}
        self.runs.append({**run, **facts, "xla": made["xla"], "roofline": minimum})

    def begin_reference(self) -> None:
        """Request the float64 meta-gradient without waiting for it."""
        problem, exact = self.programs.problem(self.w.name), self.path("exact")
        self.reference.send("exact", workload=self.w.as_dict(), problem=problem, path=exact)

    def compare_with_double(self) -> None:
        """Record the error of each precision's meta-gradient."""
        self.reference.receive()
        for run in self.runs:
            ours = self.path(Name(self.w.name, run["precision"], run["convolution"]))
            run["error"] = relative_error(ours, self.path("exact"))

    def peer(self, name: str, method: str, graph: bool) -> None:
        """Check PyTorch's meta-gradient and time it in each precision. Raises ContenderError if it is wrong."""
        if graph and not self.facts[TORCH]["graphs"]:
            raise ContenderError("there is no GPU")
        peer, problem = self.torch, self.programs.problem(self.w.name)
        peer.ask("load", workload=self.w.as_dict(), problem=problem, method=method, graph=graph)
        error = self.apart(peer, name, double=False)
        if not error < TOLERANCE:
            error = self.apart(peer, name, double=True)
            if not error < DOUBLE_TOLERANCE:
                raise ContenderError(f"wrong meta-gradient: relative error {error:.2g}")
        for precision in PEER_PRECISIONS[: 1 + self.facts[TORCH]["graphs"]]:
            peer.ask("prepare", precision=precision)
            once = peer.ask("steps", count=1)["seconds"]
            times = self.repeated(peer, max(1, math.ceil(TURN / once)))
            memory = peer.ask("steps", count=1)["memory_mb"]
            facts = {"graph": graph, "memory_mb": memory, "apart": error}
            self.runs.append({**timed(method, precision, times), **facts})

    def apart(self, peer: Worker, name: str, double: bool) -> float:
        """Relative distance of a peer's meta-gradient from ours, both in float32 or both in float64."""
        path = self.path(name)
        peer.ask("gradient", path=path, double=double)
        ours = self.path("exact") if double else self.path(self.rounds[0])
        if not Path(ours).exists():
            raise ContenderError(f"there is no float{64 if double else 32} meta-gradient to check it against")
        return relative_error(path, ours)

    def repeated(self, worker: Worker, count: int) -> list[float]:
        """Seconds per meta-step of several repeats."""
        times: list[float] = []
        while len(times) < MOST and (len(times) < LEAST or sum(times) * count < SECONDS):
            times.append(worker.ask("steps", count=count)["seconds"] / count)
        return times

    def close(self) -> None:
        """Close the reference's process."""
        self.reference.close()


def timed(by: str, precision: str, times: list[float]) -> dict[str, Any]:
    """The median, the number of repeats and their spread."""
    return {
        "by": by,
        "precision": precision,
        "ms": 1e3 * median(times),
        "repeats": len(times),
        "spread": max(times) / min(times),
    }
