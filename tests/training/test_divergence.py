"""Held-out tasks that diverge are counted, and kept out of the mean of a validation."""

import warnings
from dataclasses import replace
from pathlib import Path

import jax
import numpy as np
import pytest
from training_cases import EPISODES

from innerloop.config.schema import Config
from innerloop.engine.evaluation.curve import Curve
from innerloop.training.diagnosis.divergence import means
from innerloop.training.experiments.build import build
from innerloop.training.measure import measure
from innerloop.training.storage.run_directory import RunFolder
from innerloop.training.train import train
from innerloop.training.trained import Trained


def losses(*rows: list[float]) -> Curve:
    return Curve(tuple(range(len(rows[0]))), {"loss": np.array(rows)})


def test_means_exclude_nonfinite_returns():
    curve = Curve((0, 1), {"return": np.array([[1.0, -1e9], [np.nan, 1.0], [1.0, 2.0]])})
    assert means(curve) == {"return": (2.0 - 1e9) / 2, "diverged": 1.0}


def test_means_allow_nan_scores_before_adaptation():
    curve = Curve((0, 1), {"auc": np.array([[np.nan, 0.5], [0.5, np.nan], [np.nan, 1.0]])})
    assert means(curve) == {"auc": 0.75, "diverged": 1.0}


def test_means_exclude_diverged_tasks_except_in_accuracy():
    curve = Curve(
        (0, 1), {"loss": np.array([[1.6, 0.5], [1.6, 1e6]]), "accuracy": np.array([[0.2, 0.8], [0.2, 0.2]])}
    )
    assert means(curve) == {"loss": 0.5, "accuracy": 0.5, "diverged": 1.0}
    curve.scores["accuracy"][1, -1] = np.nan  # no prediction is right
    assert means(curve) == {"loss": 0.5, "accuracy": 0.4, "diverged": 1.0}


def test_mean_is_nan_when_all_tasks_diverge():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = means(losses([1.0, np.nan], [np.inf, np.inf]))
    assert np.isnan(found["loss"])
    assert found["diverged"] == 2


def test_validation_counts_and_excludes_diverged_tasks(
    tiny: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """The mean is of the others, computed here from the scores of the same tasks."""
    import innerloop.training.loop as loop

    seen: list[Curve] = []

    def spoilt(curves: list[Curve]) -> Curve:
        (curve,) = curves
        scores = curve.scores["loss"].copy()
        scores[1, -1] = 1e7
        seen.append(Curve(curve.steps, {"loss": scores}))
        return seen[-1]

    monkeypatch.setattr(loop, "join", spoilt)
    train(tiny, tmp_path / "run")
    records = [r for r in RunFolder(tmp_path / "run").metrics() if "validation_loss" in r]
    assert len(records) == len(seen) == 2
    for record, curve in zip(records, seen, strict=True):
        assert curve.steps == (0, tiny.evaluation.steps)
        assert record["validation_diverged"] == 1
        assert record["validation_loss"] == pytest.approx(np.delete(curve.scores["loss"][:, -1], 1).mean())


def test_measure_counts_diverged_tasks_but_keeps_them_in_mean(tiny: Config):
    """A measured number is of all tasks; on these some losses grow a millionfold and stay finite."""
    config = replace(tiny, inner=replace(tiny.inner, learning_rate=0.15))
    experiment = build(replace(config, evaluation=replace(config.evaluation, steps=3, tasks=40)))
    found = measure(Trained(experiment.init_params(), experiment, "here", {}))
    scores = found.task_scores
    assert np.isfinite(scores).all()
    assert 0 < found.diverged_tasks == int((scores > 100 * found.curve.mean[0]).sum()) < 20
    assert found.value == pytest.approx(float(scores.mean()), rel=1e-5)


def test_measure_counts_diverged_classification_tasks():
    found = measure(Trained(EPISODES.init_params(), EPISODES, "here", {}), num_tasks=4)
    assert found.diverged_tasks == 0
    assert found.task_scores.shape == (4,)
    lost = jax.tree.map(lambda x: x * np.nan, EPISODES.init_params())
    found = measure(Trained(lost, EPISODES, "here", {}), num_tasks=4)
    assert found.diverged_tasks == 4
    assert np.isnan(found.value)  # rather than the accuracy of always guessing the first class
