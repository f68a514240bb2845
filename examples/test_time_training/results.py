"""The results of the comparison as a file and as a table, with intervals for the differences."""

import json
import platform
from dataclasses import asdict, dataclass
from datetime import UTC, datetime

import numpy as np

from innerloop.engine.evaluation.intervals import half_width

from .compare import Losses
from .training import Setting


@dataclass(frozen=True)
class Results:
    """Losses in nats per byte, `[mean, 95 % half-width over pieces]`: by quarter of the text, overall, first chunk.

    No step has been taken in the first chunk: differences there were learned in training.

    A model's numbers are means over the seeds that it was trained with; the intervals are over pieces of text.
    Differences to test-time training are taken seed by seed and piece by piece.
    """

    date: str
    python: str
    sizes: dict[str, int]
    parameters: int
    updates: int
    bytes_an_update: int
    pieces: int
    inner_rate: float
    losses: dict[str, list[list[float]]]
    first_chunk: dict[str, list[float]]
    by_seed: dict[str, list[float]]
    above_test_time_training: dict[str, list[float]]

    def to_json(self) -> str:
        return json.dumps(asdict(self), indent=2) + "\n"


def interval(pieces: np.ndarray) -> list[float]:
    """The mean over pieces and its 95 % half-width, of `[pieces, positions]`."""
    means = pieces.mean(axis=1)
    return [float(means.mean()), float(half_width(means))]


def report(found: list[Losses], a: Setting, parameters: int) -> Results:
    """The results of all seeds."""
    names = list(dict.fromkeys(name for one in found for name in one))
    ours, others = "test-time training", [name for name in names if name != "test-time training"]
    mean = lambda parts: np.mean(np.asarray(parts, np.float64), axis=0)
    averages = {name: mean([one[name] for one in found if name in one]) for name in names}
    both = lambda name: [one[name] - one[ours] for one in found if name in one and ours in one]
    above = {name: mean(both(name)) for name in others if both(name)}
    return Results(
        python=platform.python_version(),
        date=datetime.now(UTC).date().isoformat(),
        sizes=vars(a.sizes),
        parameters=parameters,
        updates=a.steps,
        bytes_an_update=a.meta_batch * a.sizes.context,
        pieces=len(next(iter(averages.values()))),
        inner_rate=a.rate,
        losses={
            name: [interval(part) for part in [*np.split(x, 4, axis=1), x]] for name, x in averages.items()
        },
        first_chunk={name: interval(x[:, : a.sizes.chunk]) for name, x in averages.items()},
        by_seed={
            name: [float(one[name].mean(dtype=np.float64)) for one in found if name in one] for name in names
        },
        above_test_time_training={name: interval(x) for name, x in above.items()},
    )


def table(results: Results) -> str:
    """The results as text."""
    heads = ["1st chunk", *(f"quarter {i}" for i in range(1, 5)), "all"]
    head = f"{'loss in nats a byte':22}" + "".join(f"{head:>17}" for head in heads)
    row = lambda name, cells: f"{name:22}" + "".join(f"{f'{a:.4f} ± {b:.4f}':>17}" for a, b in cells)
    rows = [row(name, [results.first_chunk[name], *cells]) for name, cells in results.losses.items()]
    above = [
        f"{name} is {a:+.4f} ± {b:.4f} above test-time training"
        for name, (a, b) in results.above_test_time_training.items()
    ]
    return "\n".join([head, *rows, *above])
