"""Summarise a race as one record of plain numbers per workload."""

from statistics import median
from typing import Any

from benchmarks.speed import flops
from benchmarks.speed.process import OURS
from benchmarks.speed.workloads import Workload
from innerloop.parallel.cpu_devices import cores


def record(
    w: Workload,
    times: dict[str, list[float]],
    cpu: dict[str, list[float]],
    memory: dict[str, tuple[float, float]],
    peaks: list[float],
    errors: dict[str, float],
    refused: dict[str, str],
    facts: dict[str, Any],
) -> dict[str, Any]:
    """Medians, and the quantities derived from them.

    times: seconds per meta-step of every turn; cpu: the same in CPU time, which other load affects less; memory: peak
    resident MB of each process while it was timed, and over its lifetime, including compilation; peaks: GFLOP/s of
    large matrix products, the largest of which counts as the machine's peak; errors: relative errors of the peers'
    meta-gradients; refused: peers that were not timed, with the reason.
    """
    medians = {name: median(turns) for name, turns in times.items()}
    ours = medians.pop(OURS)
    best = min(medians, key=lambda name: medians[name]) if medians else None
    work, peak = flops.meta_step(w), max(peaks, default=0.0)
    return {
        "workload": w.name,
        "algorithm": w.algorithm,
        "kind": w.kind,
        "ours_ms": 1e3 * ours,
        "peers_ms": {name: 1e3 * value for name, value in medians.items()},
        "cpu_ms": {name: 1e3 * median(cpu[name]) for name in (OURS, *medians)},
        "ratio": medians[best] / ours if best else None,
        "best_peer": best,
        "refused": refused,
        "gradient_error": errors,
        "checked_in_double": facts.get("checked_in_double", []),
        "tasks_per_second": {name: w.tasks / value for name, value in ({OURS: ours} | medians).items()},
        "memory_mb": {name: round(memory[name][0], 1) for name in (OURS, *medians)},
        "whole_memory_mb": {name: round(memory[name][1], 1) for name in (OURS, *medians)},
        "compile_s": facts["compile_s"],
        "gflop": work / 1e9,
        "peak_gflops": peak,
        "fraction_of_peak": work / ours / 1e9 / peak if work and peak else None,
        "turns": {name: len(turns) for name, turns in times.items()},
        "spread": {name: max(turns) / min(turns) for name, turns in times.items()},
        "tasks": w.tasks,
        "inner_steps": w.steps,
        "derivative": w.derivative,
        "threads": min(w.threads, cores()),
        "versions": facts["versions"],
    }
