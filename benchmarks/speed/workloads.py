"""The timed workloads by name, as plain values that both environments read. Standard library only.

A name is BASE, BASE-ALGORITHM, or in a sweep BASE-steps-N or BASE-tasks-N. BASE alone is second-order MAML.
"""

from dataclasses import asdict, dataclass, replace
from typing import Any

LOOP, VMAP, HIGHER, TORCHOPT, NUMPY = "pytorch-loop", "torch.func-vmap", "higher", "torchopt", "numpy"
ALL_PEERS = (LOOP, VMAP, HIGHER, TORCHOPT)


@dataclass(frozen=True)
class Workload:
    """One meta-training step, or task sampling.

    image: (height, width, channels), or None for sinusoids, whose tasks are generated inside the timed step.
    rate: inner step size for a loss that is a mean over examples. per_dispatch: our meta-steps in one call.
    derivative: how ours differentiates the inner loop; affects only the cost. threads: cores per contender.
    """

    name: str
    peers: tuple[str, ...] = ALL_PEERS
    kind: str = "training"
    algorithm: str = "maml"
    image: tuple[int, int, int] | None = None
    filters: int = 64
    downsample: str = "stride"
    features: str = "mean"
    ways: int = 5
    shots: int = 1
    queries: int = 15
    tasks: int = 32
    steps: int = 1
    rate: float = 0.4
    derivative: str = "unrolled"
    per_dispatch: int = 2
    threads: int = 2
    hidden: tuple[int, ...] = (40, 40)

    @property
    def support(self) -> int:
        """Support examples per task."""
        return self.ways * self.shots if self.image else self.shots

    @property
    def query(self) -> int:
        """Query examples per task; Reptile uses none."""
        if self.algorithm == "reptile":
            return 0
        return self.ways * self.queries if self.image else self.queries

    def as_dict(self) -> dict[str, Any]:
        """The fields as JSON values."""
        return asdict(self)


def from_dict(values: dict[str, Any]) -> Workload:
    """The inverse of `as_dict`, after JSON has turned tuples into lists."""
    fields: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in values.items()}
    return Workload(**fields)


SINUSOID = Workload(
    "sinusoid", ways=1, shots=10, queries=10, tasks=25, rate=0.01, per_dispatch=500, threads=1
)
OMNIGLOT = Workload("omniglot", image=(28, 28, 1))
POOLED = replace(OMNIGLOT, name="omniglot-pooled", downsample="pool", features="flatten")
CIFAR = Workload(
    "cifar-fs",
    image=(32, 32, 3),
    filters=32,
    downsample="pool",
    features="flatten",
    shots=5,
    tasks=4,
    steps=5,
    rate=0.01,  # with 0.05, 100 steps overfit noise until the gradient is rounding error
)
MINI_IMAGENET = replace(CIFAR, name="mini-imagenet", image=(84, 84, 3))
BASES = (SINUSOID, OMNIGLOT, POOLED, CIFAR, MINI_IMAGENET)
SWEEP_STEPS = (1, 5, 20, 50, 100)
SWEEP_TASKS = (4, 8, 16, 32, 64, 128, 256)


def with_algorithm(base: Workload, algorithm: str) -> Workload:
    """The same tasks with another algorithm, and the peers that support it."""
    # torchopt's differentiable optimisers have no first-order mode; Reptile needs neither higher nor torchopt.
    peers = {"fomaml": (LOOP, VMAP, HIGHER), "reptile": (LOOP, VMAP)}.get(algorithm, base.peers)
    return replace(base, name=f"{base.name}-{algorithm}", algorithm=algorithm, peers=peers)


def many_steps() -> list[Workload]:
    """1 to 100 inner steps: with the default derivative beside the PyTorch loop, then with those that save memory."""
    base = replace(CIFAR, peers=(LOOP,))
    plain = [replace(base, name=f"cifar-fs-steps-{n}", steps=n) for n in SWEEP_STEPS]
    saving = [
        replace(w, name=f"{w.name}-{mode}", derivative=mode, peers=())
        for mode in ("rematerialised", "mixed")
        for w in plain
    ]
    return plain + saving


def many_tasks() -> list[Workload]:
    """4 to 256 tasks of the Omniglot workload."""
    return [replace(OMNIGLOT, name=f"omniglot-tasks-{n}", tasks=n, peers=(LOOP,)) for n in SWEEP_TASKS]


def samplers() -> list[Workload]:
    """Sampling of 5-way 1-shot tasks with 15 queries, without training."""
    base = replace(OMNIGLOT, kind="sampling", peers=(NUMPY,), tasks=256, per_dispatch=4)
    return [replace(base, name="sampling"), replace(base, name="sampling-memory-map", kind="streaming")]


def workloads() -> dict[str, Workload]:
    """Every workload by name, in the table's order."""
    found = [
        w for base in BASES for w in (base, with_algorithm(base, "fomaml"), with_algorithm(base, "anil"))
    ]
    found += [with_algorithm(base, "reptile") for base in (OMNIGLOT, CIFAR)]
    found += many_steps() + many_tasks() + samplers()
    return {w.name: w for w in found}


def quick() -> dict[str, Workload]:
    """The workloads of `--quick`: five of them, beside the peers that were the fastest in earlier runs."""
    known = workloads()
    images = {
        name: replace(known[name], peers=(LOOP, TORCHOPT))
        for name in ("omniglot", "omniglot-pooled", "cifar-fs")
    }
    sinusoid = replace(known["sinusoid"], peers=(LOOP, VMAP, TORCHOPT))
    return {"sinusoid": sinusoid, **images, "sampling": known["sampling"]}
