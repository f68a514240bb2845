"""Repeats a run from its own config and compares the two: weights bit by bit, metrics to the last digit.

The same config, data, versions, and kind and number of devices give the same bits. If the runs differ, the result says
by how much, from which meta-step on, and what changed in the environment.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from innerloop.errors import InnerloopError
from innerloop.io.text import counted
from innerloop.io.untrusted import JsonObject
from innerloop.training.memory.model_size import check_stored
from innerloop.training.progress.callbacks import Callback, check_callbacks
from innerloop.training.progress.progress import Progress
from innerloop.training.storage.provenance import changed
from innerloop.training.storage.run_directory import RunFolder
from innerloop.training.storage.sources import load_weights
from innerloop.training.train import train


@dataclass(frozen=True)
class Reproduction:
    """How two runs of one config compare.

    Attributes:
        arrays: the number of arrays.
        weights: the largest difference in an array, relative to its largest value (0: the same bits).
        lines: the number of log lines.
        metrics: the first meta-step whose line differs (None: no line does).
        circumstances: the differences between the environments of the two runs, as (then, now).
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
            lines = counted(self.lines, "log line")
            return (
                f"Reproduced: the same bits in {counted(self.arrays, 'array')}, the same numbers in {lines}."
            )
        where = (
            "metrics agree" if self.metrics is None else f"metrics differ from meta-step {self.metrics} on"
        )
        differences = "".join(f"\n  {name}: then {a}, now {b}" for name, (a, b) in self.circumstances.items())
        why = (
            f"Changed since then:{differences}" if differences else "The recorded environments are the same."
        )
        gap = (
            f"weights differ by up to {self.weights:.1e} (relative)"
            if self.weights
            else "weights are identical"
        )
        return f"Not reproduced: {gap}; {where}. {why}"


@dataclass(frozen=True)
class Ended:
    """The parts of an ended run that are compared: weights by path, log lines, and the environment."""

    path: Path
    arrays: dict[str, np.ndarray]
    metrics: list[JsonObject]
    made_with: JsonObject
    steps: int
    """The number of meta-steps that it took."""
    ends: tuple[range, ...] = ()
    """The meta-steps whose lines tell that the run once ended there, before it was made longer."""

    @classmethod
    def read(cls, folder: Path | str) -> "Ended":
        """Read a run. Raises InnerloopError if it has not ended, or one of its files is damaged."""
        run = RunFolder(folder)
        run.config()  # a clear error if the folder is not a run
        found = load_weights(folder)
        check_stored(found.config, found.arrays, str(found.path))
        every = max(1, found.config.outer.log_every)
        ends = (range(end, -(-end // every) * every + 1) for end in run.earlier_lengths())
        steps = found.facts.get("meta_steps", found.config.outer.meta_steps)
        return cls(run.path, found.arrays, run.metrics(), run.known(), steps, tuple(ends))


class EndAt(Callback):
    """Ends a run at a meta-step, where a callback ended the run that it repeats."""

    def __init__(self, step: int):
        self.step = step

    def on_block(self, progress: Progress) -> bool:
        """End the run if it has come that far."""
        return progress.step >= self.step


def reproduce(
    folder: Path | str, into: Path | str, *, callbacks: Sequence[Callback] = (), progress: bool = True
) -> Reproduction:
    """Repeat a run and compare the two, weight by weight and line by line of their logs.

    Args:
        folder: the folder of a run from a config that has ended.
        into: a new folder for its repetition.
        callbacks: as for `train`.
        progress: as for `train`.

    Returns:
        How the two compare; `same` if nothing differs.

    Raises:
        InnerloopError: if the run has not ended or is damaged, or `into` already holds a run.
    """
    check_callbacks(callbacks, "reproduce")
    then = Ended.read(folder)  # errors are raised before hours of training
    told = [*callbacks, EndAt(then.steps)]
    train(RunFolder(folder).config(), into, callbacks=told, progress=progress)
    return compare(then, Ended.read(into))


def compare(run: Ended, again: Ended) -> Reproduction:
    """Compare two ended runs."""
    a, b = run.arrays, again.arrays
    if {n: x.shape for n, x in a.items()} != {n: x.shape for n, x in b.items()}:
        raise InnerloopError(
            str(again.path),
            f"does not hold the same model as {run.path}",
            hint="compare runs of the same config",
        )
    once = lambda records: [r for r in records if not any(r["step"] in end for end in run.ends)]
    lines = once(again.metrics)
    return Reproduction(
        len(a),
        max((difference(a[name], b[name]) for name in a), default=0.0),
        len(lines),
        first_different(once(run.metrics), lines),
        changed(run.made_with, again.made_with),
    )


def difference(a: np.ndarray, b: np.ndarray) -> float:
    """Largest difference relative to the largest value; 0 only if all bits are the same."""
    if a.tobytes() == b.tobytes():
        return 0.0
    apart = float(np.abs(a.astype(np.float64) - b).max()) / max(float(np.abs(a).max()), 1e-300)
    return max(apart, float(np.finfo(np.float64).tiny))  # 0 and -0 are equal but have different bits


def first_different(old: list[JsonObject], new: list[JsonObject]) -> int | None:
    """The meta-step of the first log line that differs or is missing."""
    for a, b in zip(old, new, strict=False):
        if json.dumps(a, sort_keys=True) != json.dumps(b, sort_keys=True):
            return int(b["step"])
    longer = max(old, new, key=len)[min(len(old), len(new)) :]
    return int(longer[0]["step"]) if longer else None
