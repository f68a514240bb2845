"""What the compiled meta-step of a workload does, on a CPU's code path and on a GPU's: `python -m benchmarks --counts`.

Both are compiled for the processor that is here, so the numbers of a GPU's path are no GPU's own; they are for
comparing one state of the code with another. (`python -m benchmarks.gpu` counts on a GPU.)
"""

import contextlib
from collections.abc import Iterator
from unittest import mock

import jax

from benchmarks.accuracy.tables import table
from benchmarks.programs.cost import Cost, cost_of
from benchmarks.speed.problem import KEY, compile_steps, experiment, outer_loop
from benchmarks.speed.workloads import Workload
from innerloop.engine import outer

STEPS = 2
"""Meta-steps in the program that is counted."""
PATHS = ("cpu", "gpu")


@contextlib.contextmanager
def code_path(backend: str) -> Iterator[None]:
    """What is traced within chooses its code as on this backend."""
    jax.clear_caches()  # what was traced before has the code of its own path
    with mock.patch.object(jax, "default_backend", return_value=backend):
        yield
    jax.clear_caches()


def count(w: Workload, path: str) -> Cost:
    """Of one meta-step on one device."""
    with code_path(path):
        made = experiment(w)
        loop = outer_loop(made, outer.task_mesh(w.tasks, jax.devices()[:1]))
        state = loop.start(made.init_params(), jax.random.key(KEY))
        return cost_of(compile_steps(loop, state, STEPS).as_text() or "") * (1 / STEPS)


def counts_table(found: dict[tuple[str, str], Cost]) -> str:
    """Costs by workload and path."""
    header = ["workload", "code path", "kernels", "loop passes", "GB", "GFLOP"]
    rows = [
        [*names, f"{c.kernels:.0f}", f"{c.loops:.0f}", f"{c.bytes / 1e9:.3g}", f"{c.operations / 1e9:.3g}"]
        for names, c in found.items()
    ]
    return table(header, rows)
