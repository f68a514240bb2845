"""Count what the workloads' meta-steps do on an H200, in programs compiled for it without a GPU.

python -m benchmarks.gpu.counts                    all workloads: print the table, write the result file and the docs
python -m benchmarks.gpu.counts omniglot           one workload, only printed
python -m benchmarks.gpu.counts --table            only write the docs' table, from the result file

It needs JAX's CUDA plugin (`pip install "jax[cuda13]"`), but no GPU. Library products are not autotuned.
"""

import argparse
import json
import os
import sys
from pathlib import Path
from typing import Any
from unittest import mock

import jax
from jax.experimental import topologies
from jax.sharding import NamedSharding, PartitionSpec

from benchmarks.accuracy.tables import between_markers, table
from benchmarks.gpu.cases import CASES
from benchmarks.gpu.page import FOLDER
from benchmarks.programs.cost import cost_of
from benchmarks.programs.counts import STEPS, code_path
from benchmarks.provenance import circumstances
from benchmarks.speed import flops
from benchmarks.speed.page import PAGE
from benchmarks.speed.problem import KEY, experiment, outer_loop
from benchmarks.speed.workloads import Workload
from innerloop.io.files import write_text
from innerloop.nn.kernels.backend import GPU_CONVOLUTION
from innerloop.parallel.mesh import task_mesh

RESULT = FOLDER / "counts-h200.json"
COPY = 4.3e12
"""Bytes per second that an H200 reads and writes in a copy (measured)."""


def h200() -> list[Any]:
    """An H200 as a compilation target. Raises RuntimeError without the plugin."""
    target = Path(__file__).with_name("h200.txtpb").read_text()
    flags = os.environ.get("XLA_FLAGS", "")
    os.environ["XLA_FLAGS"] = f"{flags} --xla_gpu_autotune_level=0"  # there is no GPU to tune products on
    try:
        return topologies.get_topology_desc("", "cuda", target_config=target, topology="1x1x1").devices
    except NotImplementedError:
        raise RuntimeError('JAX has no CUDA plugin here; pip install "jax[cuda13]"') from None


def compiled(w: Workload, devices: list[Any]) -> jax.stages.Compiled:
    """Compile a few meta-steps."""
    with code_path("gpu"), mock.patch.dict(os.environ, {GPU_CONVOLUTION: "pallas"}):
        made = experiment(w)
        loop = outer_loop(made, task_mesh(w.tasks, devices))
        everywhere = NamedSharding(loop.mesh, PartitionSpec())
        abstract = lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=everywhere)
        start = lambda: loop.start(made.init_params(), jax.random.key(KEY))
        shapes = jax.eval_shape(lambda: (start(), None, loop.data(start(), STEPS)))
        program: Any = loop.program(STEPS)
        return program.__wrapped__.lower(*jax.tree.map(abstract, shapes)).compile()


def count(w: Workload, devices: list[Any]) -> dict[str, Any]:
    """The cost of one meta-step."""
    program = compiled(w, devices)
    cost = cost_of(program.as_text() or "") * (1 / STEPS)
    memory = program.memory_analysis()
    return {
        "kernels": cost.kernels,
        "bytes": cost.bytes,
        "operations": flops.meta_step(w),
        "memory": memory.temp_size_in_bytes if memory else 0,
    }


def counts_table(found: dict[str, dict[str, Any]]) -> str:
    """One row per workload."""
    rows = [
        [
            name,
            f"{one['kernels']:.0f}",
            f"{one['bytes'] / 1e9:.3g}",
            f"{1e3 * one['bytes'] / COPY:.3g}",
            f"{one['operations'] / 1e9:.3g}",
            f"{one['memory'] / 1e6:.0f}",
        ]
        for name, one in found.items()
    ]
    return table(["workload", "kernels", "GB", "copied in, ms", "GFLOP", "temporary memory, MB"], rows)


def main(words: list[str] | None = None) -> int:
    """Run the command and return its exit code."""
    asked = argparse.ArgumentParser(
        prog="python -m benchmarks.gpu.counts",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    known = {case.workload.name: case.workload for case in CASES}
    asked.add_argument("names", nargs="*", metavar="NAME", help=f"workloads among {', '.join(known)}")
    asked.add_argument("--table", action="store_true", help="only write the table, from the result file")
    chosen = asked.parse_args(words)
    if unknown := [name for name in chosen.names if name not in known]:
        print(f"there is no workload {unknown[0]!r}; choose among: {', '.join(known)}.", file=sys.stderr)
        return 2
    if not chosen.table:
        try:
            devices = h200()
        except RuntimeError as error:
            print(error, file=sys.stderr)
            return 2
        found = {name: count(known[name], devices) for name in chosen.names or known}
        print(counts_table(found))
        if chosen.names:
            return 0
        record = {"jax": jax.__version__, **circumstances(), "workloads": found}
        write_text(RESULT, json.dumps(record, indent=1) + "\n")
    between_markers(PAGE, "gpu-counts", counts_table(json.loads(RESULT.read_text())["workloads"]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
