"""Makes training fit into memory, from a prediction made before anything is compiled.

The plan trades time for memory and never changes the mathematics. In this order: vectorise fewer tasks at a time,
recompute inner steps in the backward pass, keep only the square root of their number as checkpoints, and keep those in
host memory. A run that fits is left unchanged, to the bit.
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass, replace

import jax

from innerloop.config.schema import InnerConfig
from innerloop.engine.inner.nested_scan import square_root_segments
from innerloop.engine.outer import chunking
from innerloop.io.text import counted
from innerloop.parallel.mesh import task_mesh
from innerloop.training.experiments.supervised import SupervisedExperiment
from innerloop.training.memory.peak_memory import predicted_peak

SAFETY = 2
"""The prediction is accurate to a factor of about two (see `innerloop.training.memory.peak_memory`)."""

UNKNOWN = 2**63
"""The bytes assumed to be available if that cannot be determined; every plan fits."""

FEWEST_STEPS = 4
"""The number of inner steps below which checkpoints through time save nothing."""


@dataclass(frozen=True)
class MemoryPlan:
    """Tasks vectorised at a time on each device, the inner loop, and the bytes predicted and available."""

    chunk: int
    inner: InnerConfig
    predicted: int
    available: int
    changed: bool

    @property
    def fits(self) -> bool:
        """Whether the prediction, times the safety factor, is at most what is available."""
        return SAFETY * self.predicted <= self.available

    @property
    def messages(self) -> list[str]:
        """The plan as a sentence, if it is worth reporting: at least 0.1 GiB, a change, or no fit."""
        news, text = self.predicted >= 0.1 * 2**30 or self.changed or not self.fits, str(self)
        return [f"{text[:1].upper()}{text[1:]}."] if news else []

    def __str__(self) -> str:
        need, have = (f"{n / 2**30:.1f} GiB" for n in (self.predicted, self.available))
        text = f"memory: about {need}{'' if self.available == UNKNOWN else f' of {have}'} at peak"
        if self.changed:
            tasks = "one" if self.chunk == 1 else f"{self.chunk}"
            text += f", so tasks run {tasks} at a time, and inner steps are {self.inner.derivative}"
            text += (
                f", with {counted(self.inner.checkpoints, 'checkpoint')}" if self.inner.checkpoints else ""
            )
            text += " in host memory" if self.inner.offload else ""
        return (
            text if self.fits else f"{text}; this may not fit: use fewer inner steps, examples or --devices"
        )


def available_memory() -> int:
    """Free bytes of the accelerators or of the machine; `UNKNOWN` if neither can be determined."""
    stats = jax.local_devices()[0].memory_stats() or {}
    if "bytes_limit" in stats:
        return (stats["bytes_limit"] - stats.get("bytes_in_use", 0)) * len(jax.local_devices())
    for name in ("SC_AVPHYS_PAGES", "SC_PHYS_PAGES"):  # macOS lacks the first, Windows both
        if name in getattr(os, "sysconf_names", ()) and os.sysconf(name) > 0:
            return os.sysconf(name) * os.sysconf("SC_PAGE_SIZE")
    return UNKNOWN


def peak_of_a_task(experiment: SupervisedExperiment) -> int:
    """Predicted peak bytes of one task's meta-gradient."""
    distribution = experiment.train_tasks()
    params = jax.eval_shape(experiment.init_params)
    one = lambda params, key: experiment.algorithm.meta_grad(params, distribution.sample(key))
    return predicted_peak(one, params, experiment.keys().tasks)


def memory_plan(experiment: SupervisedExperiment, available: int | None = None) -> MemoryPlan:
    """The first plan that fits: as configured; with fewer tasks at a time; the same for each of `cheaper_ways`.

    A chunk set in the config is kept. If no plan fits, the last one is returned.
    """
    config = experiment.config
    available = available_memory() if available is None else available
    mesh = task_mesh(config.outer.meta_batch, model_shards=config.outer.model_shards)
    share, chunk = chunking.split_evenly(config.outer.meta_batch, mesh, experiment.chunk, "train")
    chunks = [chunk]
    if config.outer.chunk is None:
        chunks = [n for n in range(chunk, 0, -1) if share % n == 0]
    plans: list[MemoryPlan] = []
    for inner in (config.inner, *(cheaper_ways(config.inner) if config.spec.second_order else ())):
        of_a_task = peak_of_a_task(replace(experiment, config=replace(config, inner=inner)))
        for n in chunks:
            changed = (n, inner) != (chunk, config.inner)
            # Devices that share a model share its tasks' memory too.
            groups = len(mesh.local_devices) // config.outer.model_shards
            plans.append(MemoryPlan(n, inner, groups * n * of_a_task, available, changed))
            if plans[-1].fits:
                return plans[-1]
    return plans[-1]


def cheaper_ways(inner: InnerConfig) -> Iterator[InnerConfig]:
    """Variants of the inner loop that need less memory and more time; explicit settings are kept."""
    if inner.derivative == "unrolled":
        yield (inner := replace(inner, derivative="rematerialised"))
    if inner.checkpoints is None and inner.steps >= FEWEST_STEPS:
        yield (inner := replace(inner, checkpoints=square_root_segments(inner.steps)))
    if inner.checkpoints is not None and not inner.offload and jax.default_backend() != "cpu":
        yield replace(inner, offload=True)


def apply_plan(experiment: SupervisedExperiment, plan: MemoryPlan) -> SupervisedExperiment:
    """The experiment with the plan's chunk and inner loop."""
    if not plan.changed:
        return experiment
    config = experiment.config
    outer = replace(config.outer, chunk=plan.chunk)
    return replace(experiment, config=replace(config, inner=plan.inner, outer=outer))
