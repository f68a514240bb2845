"""Compare half-cheetah steps per second with Gymnasium's vector environments.

python -m benchmarks.rl.physics

Ours steps 800 trajectories (40 tasks with 20 each) inside a compiled program on all cores. Gymnasium steps
HalfCheetah-v5 in SyncVectorEnv and AsyncVectorEnv with the numbers of copies in CONTENDERS. Gymnasium's random actions
are drawn beforehand. Every round times all of them in turn, so that other load affects all alike. The record, with the
median and the best round of each, goes to benchmarks/rl/physics.json.
"""

import json
import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.provenance import circumstances
from innerloop.io.files import write_text
from innerloop.parallel.cpu_devices import use_cores
from innerloop.rl.environments import Locomotion

ROUNDS = 5
OURS, STEPS = 800, 25
CONTENDERS = {"SyncVectorEnv": (8,), "AsyncVectorEnv": (2, 8, 32)}
THEIR_STEPS = 4000
"""Environment steps in one round, over all copies."""

Timed = Callable[[], int]
"""Runs some environment steps and returns their number."""


def ours() -> Timed:
    """A compiled scan over the steps of all trajectories, split over the cores as in training."""
    environment = Locomotion("half-cheetah", engine="c")
    devices = jax.devices()
    share = OURS // len(devices)

    def one(key: Any, state: Any) -> Any:
        actions = jax.random.uniform(key, (STEPS, share, environment.action_size), minval=-1.0, maxval=1.0)
        step = lambda state, action: (
            jax.vmap(environment.step, (None, 0, 0))(key, state, action).state,
            None,
        )
        return jax.lax.scan(step, state, actions)[0]

    begin = jax.pmap(lambda keys: jax.vmap(environment.reset, (0, None))(keys, jnp.ones(1))[0])
    state = begin(jax.random.split(jax.random.key(0), OURS).reshape(len(devices), share))
    go, keys = jax.pmap(one), jax.random.split(jax.random.key(1), len(devices))

    def timed() -> int:
        jax.block_until_ready(go(keys, state))
        return OURS * STEPS

    timed()
    return timed


def theirs(name: str, copies: int) -> Timed:
    """Gymnasium's vector environment with `copies` copies."""
    make = [lambda: gymnasium.make("HalfCheetah-v5") for _ in range(copies)]
    vector = getattr(gymnasium.vector, name)(make)
    vector.reset(seed=0)
    actions = np.random.default_rng(0).uniform(-1, 1, (THEIR_STEPS // copies, copies, 6)).astype(np.float32)

    def timed() -> int:
        for action in actions:
            vector.step(action)
        return actions.shape[0] * copies

    return timed


def per_second(timed: Timed) -> float:
    """Steps per second in one call."""
    begun = time.perf_counter()
    return timed() / (time.perf_counter() - begun)


def per_cpu_second(timed: Timed) -> float:
    """Steps per second of this process's CPU time: the cost, also when other work runs at the same time."""
    begun = time.process_time()
    return timed() / (time.process_time() - begun)


def main() -> None:
    """Time all contenders in turn and write the record."""
    runs = {"innerloop": ours()}
    runs |= {f"{name}({n})": theirs(name, n) for name, counts in CONTENDERS.items() for n in counts}
    found: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(ROUNDS):
        for name, timed in runs.items():
            found[name].append(per_second(timed))
    medians = {name: round(statistics.median(values)) for name, values in found.items()}
    alone = next(name for name in medians if name.startswith("Sync"))
    fastest = max((name for name in medians if name != "innerloop"), key=lambda name: medians[name])
    record = {
        "environment_steps_per_second": medians,
        "steps_per_cpu_second": {name: round(per_cpu_second(runs[name])) for name in ("innerloop", alone)},
        "best": {name: round(max(values)) for name, values in found.items()},
        "fastest_of_gymnasium": fastest,
        "ratio": round(medians["innerloop"] / medians[fastest], 2),
        "ratios": [round(a / b, 2) for a, b in zip(found["innerloop"], found[fastest], strict=True)],
        "rounds": ROUNDS,
        "cores": os.cpu_count(),
        "versions": {"gymnasium": gymnasium.__version__},
        **circumstances(),
    }
    text = json.dumps(record, indent=1) + "\n"
    write_text(Path(__file__).with_name("physics.json"), text)
    print(text, end="")


if __name__ == "__main__":
    use_cores()
    main()
