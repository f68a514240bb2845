"""One workload on a GPU: ours in every precision, then PyTorch, each checked before it is timed."""

import math
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.gpu.cases import METHODS
from benchmarks.gpu.clock import Clock
from benchmarks.gpu.roofline import roofline
from benchmarks.gpu.worker import OURS, REFERENCE, TORCH, Worker
from benchmarks.speed import flops
from benchmarks.speed.process import ContenderError
from benchmarks.speed.runner import DOUBLE_TOLERANCE, TOLERANCE, relative_error
from benchmarks.speed.workloads import Workload

LEAST, MOST = 5, 50
"""Repeats of which the median is taken."""
SECONDS = 1.5
"""Of the repeats of one contender, about."""
TURN = 0.05
"""Seconds of one repeat of PyTorch, at least."""
PEER_PRECISIONS = ("float32", "tf32")
OUT_OF_TIME = "no time was left"

Tell = Callable[[str], None]


class GpuRace:
    """All contenders of one workload, in a folder for what they exchange."""

    def __init__(
        self, w: Workload, workers: dict[str, Worker], facts: dict[str, Any], clock: Clock, tell: Tell
    ):
        self.w, self.workers, self.facts, self.clock, self.tell = w, workers, facts, clock, tell
        self.folder = workers[OURS].log.parent
        self.runs: list[dict[str, Any]] = []
        self.left_out: dict[str, str] = {}

    def run(self) -> dict[str, Any]:
        """Everything, into one record. Raises ContenderError where ours fails in float32 before the time is over."""
        for number, precision in enumerate(self.facts[OURS]["precisions"]):
            self.attempt(f"innerloop {precision}", lambda p=precision: self.ours(p), needed=number == 0)
        if self.runs and self.w.image and self.facts[OURS]["platform"] == "gpu":
            self.attempt("innerloop float32, Pallas", lambda: self.ours("float32", "pallas"))
        self.attempt("float64", self.compare_with_double)
        if self.facts[TORCH]:
            for method in METHODS:
                for graph in (False, True):
                    name = f"{method}, CUDA graph" if graph else method
                    self.attempt(name, lambda n=name, m=method, g=graph: self.peer(n, m, g))
        shape = {"workload": self.w.name, "tasks": self.w.tasks, "inner_steps": self.w.steps}
        dispatch = {"per_dispatch": self.w.per_dispatch, "operations": flops.meta_step(self.w)}
        return {**shape, **dispatch, "runs": self.runs, "left_out": self.left_out}

    def attempt(self, name: str, act: Callable[[], None], needed: bool = False) -> None:
        """Do one thing if its time has not passed; what fails is left out, with its reason."""
        if not (self.clock.left if needed else self.clock.turn_left):
            self.left_out[name] = OUT_OF_TIME
            return
        self.tell(name)
        try:
            act()
        except ContenderError as error:
            if needed and self.clock.left:
                raise
            self.left_out[name] = str(error)

    def path(self, name: str) -> str:
        """A file that contenders exchange."""
        return str(self.folder / f"{self.w.name}-{name}.npz".replace(" ", "-"))

    def ours(self, precision: str, convolution: str = "patches") -> None:
        """Compile, time, and keep the first gradient; the reference begins as soon as there is a problem."""
        ours, problem, own = self.workers[OURS], self.path("problem"), {"convolution": convolution}
        made = ours.ask("load", workload=self.w.as_dict(), problem=problem, precision=precision, **own)
        if precision == "float32" and convolution == "patches":
            self.attempt("float64", lambda: self.begin_reference(problem))
        ours.ask("steps", count=self.w.per_dispatch)
        ours.ask("gradient", path=self.path(name_of(precision, convolution)))
        times = self.repeated(ours, self.w.per_dispatch)
        if (
            convolution != "patches"
        ):  # the compiled program does not tell the products inside a kernel of Pallas
            made["cost"]["operations"] = self.runs[0]["cost"]["operations"]
        facts = {name: made[name] for name in ("compile_s", "memory_mb", "cost", "xla")}
        least = roofline(made["cost"], precision, self.facts["rates"], median(times))
        self.runs.append({**timed("innerloop", precision, times), **own, **facts, "roofline": least})

    def begin_reference(self, problem: str) -> None:
        """Ask for the gradient in float64, and do not wait for it."""
        exact = self.path("exact")
        self.workers[REFERENCE].send("exact", workload=self.w.as_dict(), problem=problem, path=exact)

    def compare_with_double(self) -> None:
        """The error of each precision's meta-gradient."""
        self.workers[REFERENCE].receive()
        for run in self.runs:
            ours = self.path(name_of(run["precision"], run["convolution"]))
            run["error"] = relative_error(ours, self.path("exact"))

    def peer(self, name: str, method: str, graph: bool) -> None:
        """Check a meta-gradient of PyTorch's and time it in each precision. Raises ContenderError if it is wrong."""
        if graph and not self.facts[TORCH]["graphs"]:
            raise ContenderError("there is no GPU")
        peer = self.workers[TORCH]
        peer.ask("load", workload=self.w.as_dict(), problem=self.path("problem"), method=method, graph=graph)
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
        ours = self.path("exact" if double else "ours-float32")
        if not Path(ours).exists():
            raise ContenderError("there is no gradient in float64 to check it against")
        return relative_error(path, ours)

    def repeated(self, worker: Worker, count: int) -> list[float]:
        """Seconds of a meta-step, several times over."""
        times: list[float] = []
        while len(times) < MOST and (len(times) < LEAST or sum(times) * count < SECONDS):
            times.append(worker.ask("steps", count=count)["seconds"] / count)
        return times


def name_of(precision: str, convolution: str) -> str:
    """The name of a file of our gradient."""
    return f"ours-{precision}" + (f"-{convolution}" if convolution != "patches" else "")


def timed(by: str, precision: str, times: list[float]) -> dict[str, Any]:
    """The median and its circumstances."""
    return {
        "by": by,
        "precision": precision,
        "ms": 1e3 * median(times),
        "repeats": len(times),
        "spread": max(times) / min(times),
    }
