"""The four models on the same text: the loss by position, and whether the differences are real."""

import json
from dataclasses import asdict, dataclass
from functools import partial

import jax
import numpy as np
import optax
from jaxtyping import PyTree

import innerloop as il
from innerloop.engine.intervals import half_width

from .algorithm import TestTimeTraining, clipped, test_time_training
from .decoder import Sizes, decoder
from .text import Text, python_sources

DYNAMIC_RATES = (0.01, 0.03, 0.1, 0.3)
"""Step sizes of dynamic evaluation, of which the best on the test text itself is reported: it has the advantage."""


@dataclass(frozen=True)
class Results:
    """Losses in nats a byte by quarter of the text and in all: `[mean, 95 % half width over pieces]`."""

    sizes: dict[str, int]
    parameters: int
    steps: int
    seeds: int
    losses: dict[str, list[list[float]]]
    by_seed: dict[str, list[float]]
    above_test_time_training: dict[str, list[float]]

    def to_json(self) -> str:
        return json.dumps(asdict(self), indent=2) + "\n"


def train(algorithm: TestTimeTraining, text: Text, s: Sizes, steps: int, seed: int) -> PyTree:
    """Train all parameters by Adam."""
    schedule = optax.warmup_cosine_decay_schedule(0.0, 2e-3, steps // 10, steps)
    optimizer = optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(schedule, b2=0.95, weight_decay=0.1))
    loop = il.OuterLoop(algorithm, optimizer, text, meta_batch=8, chunk=1)
    state = loop.init(decoder(jax.random.key(seed), s), jax.random.key(seed + 1))
    for _ in range(4):
        state, info = loop.run(state, steps // 4)
        print(f"    update {int(state.step)}: loss {float(info.outer_loss[-20:].mean()):.3f}", flush=True)
    return state.params


def losses(algorithm: TestTimeTraining, params: PyTree, text: Text, count: int) -> np.ndarray:
    """The loss of every byte of held-out pieces, in nats, `[pieces, positions]`."""
    keys = jax.vmap(partial(jax.random.fold_in, jax.random.key(99)))(np.arange(count))
    one = lambda key: algorithm.trajectory(params, text.sample(key).support).aux.reshape(-1)
    return np.asarray(jax.jit(lambda keys: jax.lax.map(one, keys))(keys))


def compare(s: Sizes, steps: int, count: int, rate: float, seed: int) -> dict[str, np.ndarray]:
    """The loss of every byte under the four models, `[pieces, positions]` each."""
    sources, held_out = python_sources(s.context + 1)
    full = Sizes(**(vars(s) | {"window": s.context}))
    still = optax.set_to_zero()
    found = {}
    for name, algorithm in (
        ("window alone", test_time_training(still, s)),
        ("full attention", test_time_training(still, full)),
        ("test-time training", test_time_training(clipped(rate), s)),
    ):
        print(f"  {name}", flush=True)
        params = train(algorithm, sources, algorithm.sizes, steps, seed)
        found[name] = losses(algorithm, params, held_out, count)
        if name == "window alone":
            dynamic = (test_time_training(clipped(other), s) for other in DYNAMIC_RATES)
            found["dynamic evaluation"] = min(
                (losses(d, params, held_out, count) for d in dynamic), key=np.mean
            )
    return found


def interval(pieces: np.ndarray) -> list[float]:
    """The mean over pieces and its 95 % half width, of `[pieces, positions]`."""
    means = pieces.mean(axis=1)
    return [float(means.mean()), float(half_width(means))]


def report(found: list[dict[str, np.ndarray]], s: Sizes, steps: int, parameters: int) -> Results:
    """Means over seeds; differences to test-time training are taken piece by piece."""
    mean = {name: np.asarray([one[name] for one in found], np.float64).mean(axis=0) for name in found[0]}
    ours = mean["test-time training"]
    return Results(
        sizes=vars(s),
        parameters=parameters,
        steps=steps,
        seeds=len(found),
        losses={name: [interval(q) for q in [*np.split(x, 4, axis=1), x]] for name, x in mean.items()},
        by_seed={name: [float(one[name].mean(dtype=np.float64)) for one in found] for name in mean},
        above_test_time_training={name: interval(x - ours) for name, x in mean.items() if x is not ours},
    )


def table(results: Results) -> str:
    """The results as text."""
    head = (
        f"{'loss in nats a byte':22}" + "".join(f"{f'quarter {i}':>17}" for i in range(1, 5)) + f"{'all':>17}"
    )
    row = lambda name, cells: f"{name:22}" + "".join(f"{f'{a:.4f} ± {b:.4f}':>17}" for a, b in cells)
    rows = [row(name, cells) for name, cells in results.losses.items()]
    above = [
        f"{name} is {a:.4f} ± {b:.4f} above test-time training"
        for name, (a, b) in results.above_test_time_training.items()
    ]
    return "\n".join([head, *rows, *above])
