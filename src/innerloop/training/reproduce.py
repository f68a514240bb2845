"""A run made again from its own config, and compared: weights to the bit, metrics to the last digit.

Same config, same data, same versions, same kind and number of devices: same bits. Where they differ, the verdict names
how far, from which meta-step on, and what was different in the circumstances.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from innerloop.errors import InnerloopError
from innerloop.io.untrusted import JsonObject
from innerloop.training.loop import Progress
from innerloop.training.model_size import check_stored
from innerloop.training.storage import weights
from innerloop.training.storage.provenance import changed
from innerloop.training.storage.run_directory import RunFolder
from innerloop.training.train import train


@dataclass(frozen=True)
class Verdict:
    """How two runs of one config compare.

    arrays: how many there are; weights: the largest difference of an array, relative to its largest value (0: the
    same bits); lines: log lines; metrics: the first meta-step whose line differs (None: all the same);
    circumstances: what the runs were made with, where it differs, as (then, now).
    """

    arrays: int
    weights: float
    lines: int
    metrics: int | None
    circumstances: dict[str, tuple[str, str]]

    @property
    def same(self) -> bool:
        """Whether nothing differs."""
        return self.weights == 0 and self.metrics is None

    def __str__(self) -> str:
        if self.same:
            return f"Reproduced: the same bits in {self.arrays} arrays, the same numbers in {self.lines} log lines."
        where = (
            "in no log line" if self.metrics is None else f"from the log line of meta-step {self.metrics} on"
        )
        told = "".join(f"\n  {name}: then {a}, now {b}" for name, (a, b) in self.circumstances.items())
        why = f"Different from then:{told}" if told else "Nothing recorded of the circumstances differs."
        return f"Not reproduced: weights differ by up to {self.weights:.1e} of the largest, {where}. {why}"


@dataclass(frozen=True)
class Ended:
    """What is compared of an ended run: weights by path, log lines, and what it was made with."""

    path: Path
    arrays: dict[str, np.ndarray]
    metrics: list[JsonObject]
    made_with: JsonObject

    @classmethod
    def read(cls, folder: Path | str) -> "Ended":
        """Raises InnerloopError if the run has not ended, or a file of it is damaged."""
        run = RunFolder(folder)
        config = run.config()  # a clear error for a folder that is no run
        if not run.weights.is_file():
            do = f"go on with it by `innerloop train --resume {folder}`"
            raise InnerloopError(str(folder), "has not ended, so there is nothing to compare", do=do)
        arrays, trained, _ = weights.load(run.weights)
        weights.check_config(run.weights, config, trained)
        check_stored(config, arrays, str(run.weights))
        return cls(run.path, arrays, run.metrics(), run.known())


def reproduce(
    folder: Path | str, into: Path | str, *, on_progress: Callable[[Progress], None] = lambda progress: None
) -> Verdict:
    """Run the config of the run in `folder` again into the folder `into`, and compare.

    Raises InnerloopError if the run has not ended or is damaged, or `into` holds a run.
    """
    then = Ended.read(folder)  # before hours of training
    train(RunFolder(folder).config(), into, on_progress=on_progress)
    return compare(then, Ended.read(into))


def compare(run: Ended, again: Ended) -> Verdict:
    """Two ended runs."""
    a, b = run.arrays, again.arrays
    if {n: x.shape for n, x in a.items()} != {n: x.shape for n, x in b.items()}:
        raise InnerloopError(
            str(again.path), f"is of another model than {run.path}", do="compare runs of one config"
        )
    return Verdict(
        len(a),
        max((difference(a[name], b[name]) for name in a), default=0.0),
        len(again.metrics),
        first_different(run.metrics, again.metrics),
        changed(run.made_with, again.made_with),
    )


def difference(a: np.ndarray, b: np.ndarray) -> float:
    """Largest difference relative to the largest value; 0 for the same bits alone."""
    if a.tobytes() == b.tobytes():
        return 0.0
    apart = float(np.abs(a.astype(np.float64) - b).max()) / max(float(np.abs(a).max()), 1e-300)
    return max(apart, float(np.finfo(np.float64).tiny))  # 0 and -0 are equal, and not the same bits


def first_different(old: list[JsonObject], new: list[JsonObject]) -> int | None:
    """The meta-step of the first log line that differs or is missing."""
    for a, b in zip(old, new, strict=False):
        if json.dumps(a, sort_keys=True) != json.dumps(b, sort_keys=True):
            return int(b["step"])
    longer = max(old, new, key=len)[min(len(old), len(new)) :]
    return int(longer[0]["step"]) if longer else None
