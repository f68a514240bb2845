"""From a run to the numbers that are reported."""

import json
from dataclasses import replace
from pathlib import Path

import jax
import numpy as np
import pytest
from training_cases import EPISODES, SPLITS, classes

from innerloop.config.schema import Config
from innerloop.engine.evaluate import evaluate
from innerloop.errors import InnerloopError
from innerloop.training import measure
from innerloop.training import trained as training_trained
from innerloop.training.storage import weights

pytestmark = pytest.mark.usefixtures("quick_compilation")


def test_measuring_classification():
    """The record says all that the number depends on; its curve is evaluate's; another mode is another number."""
    told: list[tuple[int, int]] = []
    loaded = training_trained.Trained(EPISODES.init_params(), EPISODES, "here", {"meta_steps": 4})
    record = measure.measure(
        loaded, tasks=6, on_progress=lambda done, total: told.append((done, total))
    ).to_json()
    assert told == [(6, 6)]
    assert (record["ways"], record["shots"], record["queries_per_class"], record["classes"]) == (
        3,
        2,
        2,
        "test",
    )
    assert (record["tasks"], record["inner_steps"], record["normalization"]) == (6, 2, "transductive")
    assert (record["trained_meta_steps"], record["diverged_tasks"]) == (4, 0)
    assert json.loads(json.dumps(record)) == record
    e = EPISODES
    curve = evaluate(
        e.test_algorithm, loaded.params, e.held_out_tasks(), e.score(), key=jax.random.key(0), num_tasks=6
    )
    assert record["curve"]["steps"] == [0, 1, 2]
    assert record["curve"]["accuracy"]["mean"] == pytest.approx(curve.mean("accuracy").tolist())
    assert record["accuracy"] == record["curve"]["accuracy"]["mean"][-1]
    assert record["ci95"] == pytest.approx(curve.ci95("accuracy")[-1])
    other = measure.measure(loaded, tasks=6, normalization="support", part="validation", steps=1).to_json()
    assert (other["normalization"], other["classes"], other["inner_steps"]) == ("support", "validation", 1)
    assert other["curve"]["loss"]["mean"][0] != record["curve"]["loss"]["mean"][0]


@pytest.mark.parametrize("part", ["train", "validation", "test"])
def test_the_set_of_classes_that_is_asked_for_is_measured(part: str):
    """The other sets may hold anything."""
    own = getattr(SPLITS, part)
    others = {name: classes(5) for name in SPLITS._fields if name != part}
    mixed = replace(EPISODES, splits=SPLITS._replace(**others))
    params = EPISODES.init_params()
    found, same = (
        measure.measure(training_trained.Trained(params, e, "here", {}), tasks=6, part=part)
        for e in (mixed, EPISODES)
    )
    assert found.curves == same.curves
    assert found.classes == part
    changed = replace(EPISODES, splits=SPLITS._replace(**{part: classes(own.classes + 7)}))
    other = measure.measure(training_trained.Trained(params, changed, "here", {}), tasks=6, part=part)
    assert other.curves != found.curves


def test_measuring_regression(finished: Path):
    record = measure.measure(
        training_trained.load_trained(finished / "weights.safetensors"), seed=3
    ).to_json()
    assert "accuracy" not in record
    assert record["loss"] == record["curve"]["loss"]["mean"][-1]
    assert (record["tasks"], record["seed"]) == (6, 3)


def test_validation_tasks_without_classes_are_others_than_test_tasks(finished: Path):
    """Else steps chosen on them would be chosen on the test tasks."""
    loaded = training_trained.load_trained(finished / "weights.safetensors")
    losses = [measure.measure(loaded, tasks=6, part=part).value for part in ("test", "validation", "train")]
    assert len(set(losses)) == 3
    assert losses[0] == measure.measure(loaded, tasks=6).value


def test_what_has_no_weights(tiny: Config, finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(weights, "SHIPPED", tmp_path)
    (tmp_path / "sinusoid-maml.safetensors").write_bytes((finished / "weights.safetensors").read_bytes())
    assert training_trained.load_trained("sinusoid-maml").config == tiny
    with pytest.raises(
        InnerloopError, match="no trained weights of this preset ship .*weights ship for sinusoid-maml"
    ):
        training_trained.load_trained("sinusoid-anil")
    with pytest.raises(InnerloopError, match="there is none of this name, got 'sinus'"):
        training_trained.load_trained("sinus")
    with pytest.raises(InnerloopError, match="is not a run"):
        training_trained.load_trained(tmp_path)
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(InnerloopError, match="the run has not ended; go on with `innerloop train --resume"):
        training_trained.load_trained(tmp_path)


def test_the_untrained_baseline():
    """A preset's weights before training, by seed."""
    one, other = (
        training_trained.untrained("sinusoid-maml"),
        training_trained.untrained("sinusoid-maml", seed=1),
    )
    assert (one.source, one.facts) == ("random weights", {"meta_steps": 0})
    assert not np.array_equal(one.params.head.weight, other.params.head.weight)


def test_another_image_folder(finished: Path):
    assert training_trained.load_trained(finished, data_folder="elsewhere").config.data.folder == "elsewhere"
