"""Our contender on a GPU, and the double-precision reference on a CPU.

python -m benchmarks.gpu.ours_worker CORES              on JAX's default device
python -m benchmarks.gpu.ours_worker CORES as-a-gpu     the GPU code path, on a CPU
"""

import os
import statistics
import sys
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import asdict
from importlib import metadata
from typing import Any

import jax
import jax.numpy as jnp

from benchmarks.programs.cost import cost_of
from benchmarks.programs.counts import code_path
from benchmarks.speed.problem import (
    KEY,
    compile_steps,
    experiment,
    first_tasks,
    gradient_in_double,
    load_problem,
    outer_loop,
    save_gradient,
    save_problem,
)
from benchmarks.speed.worker_protocol import serve
from benchmarks.speed.workloads import from_dict
from innerloop.config.schema import Precision
from innerloop.nn.kernels.backend import GPU_CONVOLUTION, gpu_convolution
from innerloop.parallel.precision import PRODUCTS, available, products

COPIES = 8
"""Operations per timing, run back to back."""


class Ours:
    """Meta-steps of a workload in one precision."""

    def device(self) -> dict[str, Any]:
        """The device and the precisions that it supports."""
        device = jax.devices()[0]
        return {
            "platform": device.platform,
            "device": device.device_kind,
            "precisions": [p for p in PRODUCTS if available(p) == p],
            "convolution": gpu_convolution(),
            "versions": {name: metadata.version(name) for name in ("jax", "jaxlib", "optax", "equinox")},
        }

    def rates(self, megabytes: int, side: int) -> dict[str, Any]:
        """Bytes per second of a copy (read and written), and operations per second of a matrix product by precision."""
        x, a = jnp.ones(megabytes * 2**18), jnp.ones((side, side))
        found: dict[str, float] = {}
        for precision in self.device()["precisions"]:
            with products(precision):
                found[precision] = 2 * side**3 / seconds_of(jax.jit(lambda a: a @ a), a)
        return {"copy": 2 * x.nbytes / seconds_of(jax.jit(lambda x: x + 1), x), "products": found}

    def load(
        self, workload: dict[str, Any], problem: str, precision: Precision, convolution: str
    ) -> dict[str, Any]:
        """Compile; in float32, also write the weights and the first meta-step's tasks."""
        w = self.w = from_dict(workload)
        os.environ[GPU_CONVOLUTION] = convolution
        with products(precision):
            made = experiment(w, precision)
            params = made.init_params()
            if precision == "float32":
                save_problem(problem, params, first_tasks(made))
            self.loop = outer_loop(made)
            self.state = self.loop.start(params, jax.random.key(KEY))
            begun = time.perf_counter()
            program = compile_steps(self.loop, self.state, w.per_dispatch)
        return {"compile_s": time.perf_counter() - begun, "memory_mb": memory_mb(program)} | cost(
            program, w.per_dispatch
        )

    def gradient(self, path: str) -> dict[str, Any]:
        """Write the meta-gradient of the first meta-step, which must have run."""
        save_gradient(path, self.state.opt_state[0].gradient)
        return {}

    def steps(self, count: int) -> dict[str, Any]:
        """Run one dispatch of `count` meta-steps."""
        begun = time.perf_counter()
        self.state, _ = self.loop.run(self.state, count)
        jax.block_until_ready(self.state)
        return {"seconds": time.perf_counter() - begun}

    def exact(self, workload: dict[str, Any], problem: str, path: str) -> dict[str, Any]:
        """Write the same meta-gradient in float64."""
        made = experiment(from_dict(workload))
        params, tasks = load_problem(problem, jax.eval_shape(made.init_params))
        save_gradient(path, gradient_in_double(made.algorithm, params, tasks))
        return {}


def seconds_of(operation: Callable[[jax.Array], jax.Array], x: jax.Array) -> float:
    """Median seconds per operation over several turns."""
    operation(x).block_until_ready()
    turns = []
    for _ in range(5):
        begun = time.perf_counter()
        results = [operation(x) for _ in range(COPIES)]
        jax.block_until_ready(results)
        turns.append((time.perf_counter() - begun) / COPIES)
    return statistics.median(turns)


def memory_mb(program: jax.stages.Compiled) -> float:
    """Memory of a compiled program: arguments, results and temporaries."""
    m = program.memory_analysis()
    if m is None:
        return 0.0
    total = m.argument_size_in_bytes + m.output_size_in_bytes + m.temp_size_in_bytes - m.alias_size_in_bytes
    return total / 1e6


def cost(program: jax.stages.Compiled, steps: int) -> dict[str, Any]:
    """Cost of one meta-step as counted in the program, and XLA's analysis, which counts each loop once."""
    own = program.cost_analysis() or {}
    return {
        "cost": asdict(cost_of(program.as_text() or "") * (1 / steps)),
        "xla": {name: own[name] for name in ("flops", "bytes accessed") if name in own},
    }


if __name__ == "__main__":
    with code_path("gpu") if sys.argv[2:] == ["as-a-gpu"] else nullcontext():
        serve(Ours, int(sys.argv[1]))
