"""Our contender: `python -m benchmarks.speed.innerloop_worker THREADS`.

It times what a training run calls, `OuterLoop.run`.
"""

import sys
import time
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.speed.problem import (
    KEY,
    experiment,
    first_tasks,
    gradient_in_double,
    noise,
    outer_loop,
    save_gradient,
    save_problem,
)
from benchmarks.speed.worker_protocol import serve
from benchmarks.speed.workloads import from_dict
from innerloop.engine.outer import task_draws
from innerloop.parallel.cpu_devices import use_cores
from innerloop.parallel.mesh import task_mesh
from innerloop.tasks.datasets import memmap
from innerloop.tasks.episodes import Episodes
from innerloop.tasks.streaming import StreamedEpisodes

SAMPLING_CLASSES, EACH = 4800, 20  # Omniglot's training classes with their rotations


class Ours:
    """Meta-steps of a workload."""

    def load(self, workload: dict[str, Any], problem: str) -> dict[str, Any]:
        """Write the initial weights and the first meta-step's tasks, and compile."""
        w = self.w = from_dict(workload)
        self.experiment = experiment(w)
        params, tasks = self.problem = self.experiment.init_params(), first_tasks(self.experiment)
        save_problem(problem, params, tasks)
        self.loop = outer_loop(self.experiment)
        self.state = self.loop.start(params, jax.random.key(KEY))
        first = self.steps(w.per_dispatch)["seconds"]
        second = self.steps(w.per_dispatch)["seconds"]
        return {"compile_s": max(0.0, first - second), "versions": versions()}

    def gradient(self, path: str, double: bool) -> dict[str, Any]:
        """Write the first meta-step's meta-gradient: as computed, or recomputed in double precision."""
        algorithm = self.experiment.algorithm
        exact = lambda: gradient_in_double(algorithm, *self.problem)
        save_gradient(path, exact() if double else self.state.opt_state[0].gradient)
        return {}

    def steps(self, count: int) -> dict[str, Any]:
        """Run `count` meta-steps, a multiple of those in one dispatch."""
        start = time.perf_counter()
        for _ in range(count // self.w.per_dispatch):
            self.state, _ = self.loop.run(self.state, self.w.per_dispatch)
        jax.block_until_ready(self.state)
        return {"seconds": time.perf_counter() - start}

    def peak(self) -> dict[str, Any]:
        """The rate of XLA's product of two large matrices."""
        a, product = jnp.ones((1536, 1536)), jax.jit(jnp.matmul)
        product(a, a).block_until_ready()
        times = []
        for _ in range(6):
            start = time.perf_counter()
            product(a, a).block_until_ready()
            times.append(time.perf_counter() - start)
        return {"gflops": 2 * 1536**3 / min(times) / 1e9}


class Sampler(Ours):
    """Task sampling: on the device, split over its cores as in training, or from a memory map."""

    def load(self, workload: dict[str, Any], problem: str) -> dict[str, Any]:
        """Put the examples on the device or in a memory map, and compile."""
        w = self.w = from_dict(workload)
        assert w.image is not None
        classes = noise(w.image, SAMPLING_CLASSES, EACH)
        np.savez(problem, examples=classes.examples.reshape(SAMPLING_CLASSES, EACH, *w.image))
        self.key, self.at = jax.random.key(0), 0
        if w.kind == "streaming":
            path = Path(problem).with_suffix(".npy")
            memmap.save(classes, path)
            self.stream = StreamedEpisodes(memmap.open(path), w.ways, w.shots, w.queries)
        else:
            self.draw = self.compiled(Episodes(classes, w.ways, w.shots, w.queries))
        first = self.steps(w.per_dispatch)["seconds"]
        second = self.steps(w.per_dispatch)["seconds"]
        return {"compile_s": max(0.0, first - second), "versions": versions()}

    def compiled(self, episodes: Episodes) -> Any:
        """`draw(key, step)` draws one meta-batch, split over the cores; each task overwrites the one before.

        Training and the NumPy sampler do the same: neither keeps a task after drawing the next.
        """
        mesh = task_mesh(self.w.tasks)
        by_task = jax.sharding.PartitionSpec("tasks")
        everywhere = jax.sharding.PartitionSpec()

        def draw(episodes: Episodes, keys: jax.Array) -> Any:
            place = jax.tree.map(jnp.zeros_like, jax.eval_shape(episodes.sample, keys[0]))
            drawn = jax.vmap(episodes.draw)(keys)
            last, _ = jax.lax.scan(lambda place, rows: (episodes.fetch(rows), None), place, drawn)
            return jax.tree.map(lambda x: x[None], last)

        split = jax.shard_map(
            draw, mesh=mesh, in_specs=(everywhere, by_task), out_specs=by_task, check_vma=False
        )
        function = jax.jit(lambda e, key, step: split(e, task_draws.task_keys(key, step, self.w.tasks)))
        episodes = jax.device_put(episodes, jax.sharding.NamedSharding(mesh, everywhere))
        return lambda key, step: function(episodes, key, step)

    def steps(self, count: int) -> dict[str, Any]:
        """Draw meta-batches as float32 in [0, 1], or from a memory map as bytes, which are scaled on the device."""
        start = time.perf_counter()
        for _ in range(count):
            if self.w.kind == "streaming":
                self.stream.read(self.key, self.at, 1, self.w.tasks)
            else:
                jax.block_until_ready(self.draw(self.key, np.int32(self.at)))
            self.at += 1
        return {"seconds": time.perf_counter() - start}


class Either:
    """Our contender for any workload."""

    chosen: Ours

    def load(self, workload: dict[str, Any], problem: str) -> dict[str, Any]:
        """Choose the contender for the workload's kind, and load it."""
        self.chosen = Ours() if workload["kind"] == "training" else Sampler()
        return self.chosen.load(workload, problem)

    def gradient(self, path: str, double: bool) -> dict[str, Any]:
        """Delegate to the chosen contender."""
        return self.chosen.gradient(path, double)

    def steps(self, count: int) -> dict[str, Any]:
        """Delegate to the chosen contender."""
        return self.chosen.steps(count)

    def peak(self) -> dict[str, Any]:
        """Delegate to the chosen contender."""
        return self.chosen.peak()


def versions() -> dict[str, str]:
    """Versions of our packages."""
    from importlib import metadata

    return {name: metadata.version(name) for name in ("innerloop", "jax", "jaxlib")}


def start() -> Either:
    """Use one CPU device for each core that this process may run on."""
    use_cores()
    return Either()


if __name__ == "__main__":
    serve(start, int(sys.argv[1]))
