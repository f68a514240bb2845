"""One process of the scaling measurement: join the others and time meta-steps; the first prints one JSON object."""

import json
import sys
import time
from dataclasses import replace
from pathlib import Path
from statistics import median

import jax
import numpy as np

from innerloop.config.presets.registry import preset
from innerloop.config.schema import Config
from innerloop.parallel import multi_process
from innerloop.parallel.cpu_devices import use_cores
from innerloop.tasks.class_arrays import ClassArrays, Splits
from innerloop.training.experiments.supervised import SupervisedExperiment

TURNS = 5


def workloads() -> dict[str, tuple[Config, int]]:
    """Config and meta-steps per dispatch, by name."""
    waves, letters = preset("sinusoid-maml"), preset("omniglot-5way-1shot-maml")
    return {
        "sinusoid": (replace(waves, outer=replace(waves.outer, meta_batch=24)), 200),
        "omniglot": (replace(letters, outer=replace(letters.outer, meta_batch=8)), 2),
    }


def random_splits() -> Splits:
    """Classes of random bytes, since the speed does not depend on the pictures."""
    rng = np.random.default_rng(0)
    classes = lambda n: ClassArrays.from_lists(
        [rng.integers(0, 256, (20, 28, 28, 1), np.uint8) for _ in range(n)], [str(i) for i in range(n)]
    )
    return Splits(classes(40), classes(8), classes(8))


def loopback() -> int:
    """Bytes received over this network namespace's loopback."""
    lines = Path("/proc/net/dev").read_text().splitlines()
    return next(int(line.split(":")[1].split()[0]) for line in lines if line.strip().startswith("lo:"))


def measure(name: str) -> dict[str, float]:
    """Seconds and bytes of one meta-step."""
    config, length = workloads()[name]
    experiment = SupervisedExperiment(config, random_splits() if config.data.dataset == "omniglot" else None)
    loop = experiment.outer_loop()
    state = loop.start(experiment.init_params(), experiment.keys().tasks)
    state, info = loop.run(state, length)
    jax.block_until_ready(state)
    multi_process.all_gather_int(0)  # wait until all are ready
    wall, cpu, begun = [], time.process_time_ns(), loopback()
    for _ in range(TURNS):
        turn = time.perf_counter()
        state, _ = jax.block_until_ready(loop.run(state, length))
        wall.append((time.perf_counter() - turn) / length)
    wire = loopback() - begun
    spent = multi_process.all_gather_int(time.process_time_ns() - cpu)
    gradient = sum(x.nbytes for x in jax.tree.leaves(state.params))
    scalars = info.outer_loss[0].nbytes + info.inner_losses[0].nbytes
    return {
        "processes": jax.process_count(),
        "tasks": config.outer.meta_batch,
        "seconds": median(wall),
        "cpu_seconds": sum(spent) / 1e9 / TURNS / length,
        "gradient_bytes": gradient,
        "mean_bytes": gradient + scalars,
        "wire_bytes": wire / TURNS / length,
    }


def main(name: str, count: int, index: int, port: int) -> None:
    """Measure as process `index` of `count`."""
    use_cores(1)
    if count > 1:
        multi_process.initialize(multi_process.ProcessGroup(f"127.0.0.1:{port}", count, index, 60))
    found = measure(name)
    if index == 0:
        print("RESULT " + json.dumps(found), flush=True)


if __name__ == "__main__":
    main(sys.argv[1], *map(int, sys.argv[2:]))
