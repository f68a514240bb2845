"""Seconds of one meta-iteration of 2D navigation (20 tasks, 20 trajectories, H 100, one inner step, TRPO), compiled.

python -m benchmarks.rl_speed [SHARE]

SHARE is the part of the tasks that TRPO's curvature is taken from (default: the preset's). Wall seconds say what one
waits, CPU seconds what it costs where other work runs beside it.
"""

import json
import statistics
import sys
import time
from dataclasses import replace

import jax

from innerloop import outer
from innerloop.presets import preset
from innerloop.rl.experiment import RLExperiment

STEPS = 5


def main(share: float | None) -> None:
    """Time some dispatches after the first and print a record."""
    config = preset("navigation-maml-trpo")
    if share is not None:
        config = replace(config, rl=replace(config.rl, fisher_share=share))
    e = RLExperiment(config)
    state = outer.init(e.init_params(), e.optimizer, e.keys().tasks)
    run = e.meta_steps(e.train_tasks(), STEPS)
    state, _ = jax.block_until_ready(run(state))
    wall, cpu = [], []
    for _ in range(6):
        begun = time.perf_counter(), time.process_time()
        state, _ = jax.block_until_ready(run(state))
        wall.append((time.perf_counter() - begun[0]) / STEPS)
        cpu.append((time.process_time() - begun[1]) / STEPS)
    record = {
        "seconds": round(statistics.median(wall), 4),
        "best_seconds": round(min(wall), 4),
        "cpu_seconds": round(statistics.median(cpu), 4),
        "environment_steps_per_second": round(e.environment_steps / statistics.median(wall)),
        "fisher_share": config.rl.fisher_share,
        "devices": len(jax.devices()),
    }
    print(json.dumps(record))


if __name__ == "__main__":
    jax.config.update("jax_num_cpu_devices", 2)
    main(float(sys.argv[1]) if len(sys.argv) > 1 else None)
