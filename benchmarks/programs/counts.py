"""Count what a workload's compiled meta-step does on the CPU and GPU code paths: `python -m benchmarks --counts`.

Both are compiled for this machine's default device, so the numbers of the GPU path are not those of a GPU. Use them to
compare versions of the code. (`python -m benchmarks.gpu` counts on a GPU.)
"""

import contextlib
from collections.abc import Iterator
from unittest import mock

import jax

from benchmarks.accuracy.tables import table
from benchmarks.programs.cost import Cost, cost_of
from benchmarks.speed.problem import KEY, compile_steps, experiment, outer_loop
from benchmarks.speed.workloads import Workload
from innerloop.parallel.mesh import task_mesh

STEPS = 2
"""Meta-steps in the counted program."""
PATHS = ("cpu", "gpu")


@contextlib.contextmanager
def code_path(backend: str) -> Iterator[None]:
    """Code traced in this context takes the code path of `backend`."""
    jax.clear_caches()  # earlier traces took another code path
    with mock.patch.object(jax, "default_backend", return_value=backend):
        yield
    jax.clear_caches()


def count(w: Workload, path: str) -> Cost:
    """The cost of one meta-step on one device."""
    with code_path(path):
        made = experiment(w)
        loop = outer_loop(made, task_mesh(w.tasks, jax.devices()[:1]))
        state = loop.start(made.init_params(), jax.random.key(KEY))
        return cost_of(compile_steps(loop, state, STEPS).as_text() or "") * (1 / STEPS)


def counts_table(found: dict[tuple[str, str], Cost]) -> str:
    """Costs by workload and code path."""
    header = ["workload", "code path", "kernels", "loop passes", "GB", "GFLOP"]
    rows = [
        [*names, f"{c.kernels:.0f}", f"{c.loops:.0f}", f"{c.bytes / 1e9:.3g}", f"{c.operations / 1e9:.3g}"]
        for names, c in found.items()
    ]
    return table(header, rows)
