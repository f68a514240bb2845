"""The log of the current block of meta-steps, saved with a checkpoint in the middle of the block."""

from typing import NamedTuple

import numpy as np
from jaxtyping import PyTree

from innerloop.io.untrusted import JsonObject, is_number
from innerloop.training.diagnosis.broken_trajectories import merged


class BlockLog(NamedTuple):
    """The values of every meta-step so far, by name, and the incidents, which are logged but do not end the run."""

    series: dict[str, list[float]]
    incidents: JsonObject

    def extended(self, series: dict[str, PyTree], incidents: JsonObject) -> "BlockLog":
        """This log with the meta-steps of one more dispatch."""
        new = {name: np.ravel(x).tolist() for name, x in series.items()}
        joined = {name: self.series.get(name, []) + values for name, values in new.items()}
        return BlockLog(joined, merged(self.incidents, incidents))

    def means(self) -> dict[str, float]:
        """The mean of every series."""
        return {name: float(np.mean(values)) for name, values in self.series.items()}

    def to_json(self, step: int) -> JsonObject:
        """The record of a block that has reached meta-step `step`."""
        return {"step": step, "series": self.series, "incidents": self.incidents}


EMPTY = BlockLog({}, {})


def of_record(record: JsonObject, step: int, steps: int) -> BlockLog:
    """The log of the last `steps` meta-steps of a block, up to `step`; empty if the record is not of these steps."""
    series, incidents = record.get("series"), record.get("incidents")
    if record.get("step") != step or not isinstance(series, dict) or not isinstance(incidents, dict):
        return EMPTY
    right = lambda values: isinstance(values, list) and len(values) == steps and all(map(is_number, values))
    return BlockLog(series, incidents) if all(map(right, series.values())) else EMPTY
