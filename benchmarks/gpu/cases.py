"""The workloads to time on a GPU, and the share of the time that each gets."""

from dataclasses import dataclass, replace

from benchmarks.speed.workloads import CIFAR, LOOP, MINI_IMAGENET, OMNIGLOT, POOLED, SINUSOID, VMAP, Workload

METHODS = (LOOP, VMAP)
"""PyTorch's methods; each is timed with and without a CUDA graph."""


@dataclass(frozen=True)
class Case:
    """A second-order workload and its weight in dividing the time."""

    workload: Workload
    weight: float


CASES = (
    Case(replace(SINUSOID, per_dispatch=1000), 1),
    Case(replace(OMNIGLOT, per_dispatch=100), 2),
    Case(replace(POOLED, per_dispatch=50), 3),
    Case(replace(CIFAR, per_dispatch=50), 3),
    Case(replace(MINI_IMAGENET, per_dispatch=10), 4),
)
"""The meta-steps of one dispatch take about a quarter of a second, as in a training run."""


def tiny(w: Workload) -> Workload:
    """The same workload with shapes that compile and run in seconds on a CPU."""
    small = replace(w, tasks=2, steps=min(w.steps, 2), shots=min(w.shots, 2), queries=2, per_dispatch=2)
    if w.image is None:
        return replace(small, hidden=(8, 8))
    return replace(small, image=(16, 16, w.image[2]), ways=2, filters=4)


def cases(dry: bool, names: tuple[str, ...] = ()) -> list[Case]:
    """All cases, or the named ones."""
    chosen = [case for case in CASES if not names or case.workload.name in names]
    return [replace(case, workload=tiny(case.workload)) for case in chosen] if dry else chosen
