"""From a run to the numbers that are reported."""

import json
from dataclasses import replace
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from training_cases import EPISODES, SPLITS, classes

from innerloop.config.presets.registry import preset
from innerloop.config.schema import Config, DataConfig
from innerloop.engine.evaluation.curve import Curve
from innerloop.engine.evaluation.evaluate import evaluate
from innerloop.errors import InnerloopError
from innerloop.rl.environments import Navigation
from innerloop.tasks.sinusoid import Sinusoid
from innerloop.training import measure
from innerloop.training import trained as training_trained
from innerloop.training.experiments.experiment import Split, held_out_key
from innerloop.training.experiments.reinforcement import RLExperiment
from innerloop.training.experiments.supervised import SupervisedExperiment
from innerloop.training.storage import shipped
from innerloop.training.storage.run_directory import RunFolder


def test_measure_classification_matches_evaluate():
    """The record says all that the number depends on; its curve is evaluate's; another mode is another number."""
    told: list[tuple[int, int]] = []
    loaded = training_trained.Trained(EPISODES.init_params(), EPISODES, "here", {"meta_steps": 4})
    record = measure.measure(
        loaded, num_tasks=6, on_progress=lambda done, total: told.append((done, total))
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
    other = measure.measure(
        loaded, num_tasks=6, normalization="support", split="validation", steps=1
    ).to_json()
    assert (other["normalization"], other["classes"], other["inner_steps"]) == ("support", "validation", 1)
    assert other["curve"]["loss"]["mean"][0] != record["curve"]["loss"]["mean"][0]


def test_returns_record_includes_evaluation_settings():
    """Each setting from its own place: those of test, the part of the tasks, and the falling step size."""
    config = preset("navigation-maml-trpo")
    rl = replace(
        config.rl, test_trajectories=7, test_restarts=True, horizon=11, reward="squared", test_lr_decay=0.25
    )
    config = replace(config, rl=rl, inner=replace(config.inner, learning_rate=0.4))
    loaded = training_trained.Trained({}, RLExperiment(config), "here", {"meta_steps": 3})
    broken = {"broken": np.array([[0, 1], [0, 0], [2, 7]])}
    curve = Curve((0, 1), {"return": np.array([[1.0, 2.0], [3.0, 6.0], [5.0, np.inf]])}, broken)
    found = measure.returns_of(loaded, config, curve, 5, "validation")
    said = {
        name: getattr(found, name)
        for name in ("trajectories", "restarts", "horizon", "reward", "seed", "classes")
    }
    assert list(said.values()) == [7, True, 11, "squared", 5, "validation"]
    assert (found.tasks, found.diverged_tasks, found.later_learning_rate) == (3, 1, pytest.approx(0.1))
    assert found.task_scores.tolist() == [2.0, 6.0, np.inf]
    assert found.broken_trajectories == found.to_json()["broken_trajectories"] == 10
    assert "broken_trajectories" not in replace(found, broken_trajectories=0).to_json()


def test_rotations_change_measurement_and_are_recorded():
    """Named in the record where training classes are rotated, and only there; another measurement each."""
    config = replace(EPISODES.config, data=replace(EPISODES.config.data, rotations=True))
    loaded = training_trained.Trained(EPISODES.init_params(), EPISODES.with_config(config), "here", {})
    turned, upright, plain = (
        measure.measure(loaded, num_tasks=6).to_json(),
        measure.measure(loaded, num_tasks=6, rotations=False).to_json(),
        measure.measure(training_trained.Trained(loaded.params, EPISODES, "here", {}), num_tasks=6).to_json(),
    )
    assert (turned["rotations"], upright["rotations"], "rotations" in plain) == (True, False, False)
    assert upright["curve"] == plain["curve"] != turned["curve"]


@pytest.mark.parametrize("seed", [-1, 2**32])
def test_seed_outside_uint32_range_raises(seed: int):
    """`jax.random.key` takes them modulo 2**32."""
    loaded = training_trained.Trained(EPISODES.init_params(), EPISODES, "here", {})
    with pytest.raises(InnerloopError, match="measure: `seed`: must be"):
        measure.measure(loaded, num_tasks=6, seed=seed)


@pytest.mark.parametrize("split", ["train", "validation", "test"])
def test_measure_uses_only_requested_split(split: Split):
    """The other sets may hold anything."""
    own = getattr(SPLITS, split)
    others = {name: classes(5) for name in SPLITS._fields if name != split}
    mixed = replace(EPISODES, splits=SPLITS._replace(**others))
    params = EPISODES.init_params()
    found, same = (
        measure.measure(training_trained.Trained(params, e, "here", {}), num_tasks=6, split=split)
        for e in (mixed, EPISODES)
    )
    assert found.curves == same.curves
    assert found.classes == split
    changed = replace(EPISODES, splits=SPLITS._replace(**{split: classes(own.classes + 7)}))
    other = measure.measure(training_trained.Trained(params, changed, "here", {}), num_tasks=6, split=split)
    assert other.curves != found.curves


def test_measure_regression_records_loss(finished: Path):
    record = measure.measure(
        training_trained.load_trained(finished / "weights.safetensors"), seed=3
    ).to_json()
    assert "accuracy" not in record
    assert record["loss"] == record["curve"]["loss"]["mean"][-1]
    assert (record["tasks"], record["seed"]) == (6, 3)


def test_regression_splits_draw_different_tasks(finished: Path):
    """Else steps chosen on them would be chosen on the test tasks."""
    loaded = training_trained.load_trained(finished / "weights.safetensors")
    losses = [
        measure.measure(loaded, num_tasks=6, split=part).value for part in ("test", "validation", "train")
    ]
    assert len(set(losses)) == 3
    assert losses[0] == measure.measure(loaded, num_tasks=6).value


def test_splits_and_seeds_share_no_tasks():
    """Of sinusoids and of goals: no task of one set and seed is in another set of any seed."""
    sinusoids, goals = Sinusoid(1, 1), Navigation()
    draws = {
        "sinusoid": lambda key: sinusoids.sample(key).query.inputs[0, 0],
        "navigation": lambda key: goals.sample_task(jax.random.split(key)[0])[0],
    }
    keys = [held_out_key(seed, part) for seed in range(4) for part in ("test", "validation", "train")]
    training = [SupervisedExperiment(Config(seed=seed)) for seed in range(4)]
    keys += [experiment.keys().tasks for experiment in training]
    numbers = jnp.arange(500)
    for draw in draws.values():
        one = jax.jit(jax.vmap(lambda i, key, draw=draw: draw(jax.random.fold_in(key, i)), (0, None)))
        found = np.concatenate([np.asarray(one(numbers, key)) for key in keys])
        assert len(np.unique(found)) > 0.999 * len(found)  # float32 numbers coincide now and then


def test_test_split_key_equals_seed_key():
    """Task i of seed s has the key that shipped results were measured with."""
    own = jax.random.key_data(held_out_key(5, "test"))
    np.testing.assert_array_equal(own, jax.random.key_data(jax.random.key(5)))


def test_logged_validation_loss_matches_validation_split(finished: Path):
    """The last value that was logged is that of `evaluate --split validation`, and so not of any test tasks."""
    loaded = training_trained.load_trained(finished / "weights.safetensors")
    logged = RunFolder(finished).metrics()[-1]["validation_loss"]
    tasks = loaded.config.evaluation.validation_tasks
    assert measure.measure(loaded, num_tasks=tasks, split="validation").value == pytest.approx(
        logged, rel=1e-5
    )
    tested = [measure.measure(loaded, num_tasks=tasks, seed=seed).value for seed in (0, 1)]
    assert min(abs(value - logged) for value in tested) > 1e-3 * logged


def test_load_trained_from_source_without_weights_raises(
    tiny: Config, finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(shipped, "FOLDER", tmp_path)
    (tmp_path / "sinusoid-maml.safetensors").write_bytes((finished / "weights.safetensors").read_bytes())
    assert training_trained.load_trained("sinusoid-maml").config == tiny
    with pytest.raises(
        InnerloopError, match="ships no trained weights of this preset.*weights ship for sinusoid-maml"
    ):
        training_trained.load_trained("sinusoid-anil")
    with pytest.raises(
        InnerloopError, match="source: there is no such preset, folder or file, got 'sinus'; did"
    ):
        training_trained.load_trained("sinus")
    with pytest.raises(InnerloopError, match="is not a run"):
        training_trained.load_trained(tmp_path)
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(
        InnerloopError, match="has not ended; wait .*, continue it with `innerloop train --resume"
    ):
        training_trained.load_trained(tmp_path)


def test_data_folder_replaces_recorded_path(finished: Path):
    """Only for data that are read from a folder or file, and only one that exists."""
    moved = lambda to, **data: training_trained.with_data(Config(data=DataConfig(**data)), str(to)).data
    assert moved(finished, dataset="folder", folder="here").folder == str(finished)
    assert moved(__file__, dataset="table", file="here").file == __file__
    with pytest.raises(InnerloopError, match="data_folder: must name an existing file, got"):
        moved(finished, dataset="table", file="here")
    with pytest.raises(
        InnerloopError, match="data_folder: the run's data set `sinusoid` is not read from a folder"
    ):
        training_trained.load_trained(finished, data_folder="elsewhere")
