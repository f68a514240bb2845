"""A measurement as JSON: the records that are kept in benchmarks/results, to the last key and in their order."""

import json
from pathlib import Path
from typing import Any

import pytest

from innerloop.training.measurement import Band, Measurement, ReturnMeasurement, ScoreMeasurement

RESULTS = Path(__file__).parents[2] / "benchmarks" / "results"


def of_record(record: dict[str, Any]) -> Measurement:
    """The measurement that a record was made of."""
    fields = dict(record)
    if "returns" in record:
        curves = {"return": Band(fields.pop("returns"), fields.pop("ci95"))}
        return ReturnMeasurement(score="return", steps=fields.pop("updates"), curves=curves, **fields)
    score = "accuracy" if "accuracy" in record else "loss"
    curve = dict(fields.pop("curve"))
    if "queries_per_class" in fields:
        fields["queries"] = fields.pop("queries_per_class")
    for name in (score, "ci95"):
        del fields[name]
    steps = curve.pop("steps")
    curves = {name: Band(**band) for name, band in curve.items()}
    return ScoreMeasurement(score=score, steps=steps, curves=curves, **fields)


@pytest.mark.parametrize(
    "name", ["sinusoid-joint", "cifar-fs-5way-1shot-anil", "half-cheetah-direction-maml-trpo"]
)
def test_measurement_json_round_trips_result_files(name: str):
    record = json.loads((RESULTS / f"{name}.json").read_text("utf-8"))["measurements"][0]
    found = of_record(record)
    assert json.dumps(found.to_json()) == json.dumps(record)
    assert len(repr(found)) < 120
    assert found.at(found.steps[-1]) == (found.value, found.ci95)
