from dataclasses import replace

import numpy as np

from innerloop.report import measurements, sentences
from innerloop.training.measure import measure
from innerloop.training.measurement import Band
from innerloop.training.trained import load_trained


def test_runs_are_grouped_by_problem(groups):
    assert [group.title for group in groups] == ["Sinusoid regression, 10 points", "Glyphs, 5-way 1-shot"]
    assert [run.label for run in groups[0].runs] == ["MAML", "joint training"]
    assert [[b.label for b in group.baselines] for group in groups] == [["untrained"], ["untrained"]]


def test_run_values_match_measurement(groups, runs):
    record = measure(load_trained(runs[0]), num_tasks=6).to_json()
    assert groups[0].runs[0].measurement.to_json()["curve"] == record["curve"]
    assert groups[0].runs[0].value == record["loss"]
    assert groups[0].runs[0].at(14) == (record["loss"], record["ci95"])
    assert groups[0].runs[0].at(4) is None


def test_results_are_sorted_with_baseline_last(groups):
    at = lambda result, loss: replace(
        result, measurement=replace(result.measurement, curves={"loss": Band([loss], [0.01])})
    )
    group = replace(groups[0], runs=[at(groups[0].runs[0], 99.0), at(groups[0].runs[1], 0.1)])
    assert [result.label for result in group.results] == ["joint training", "MAML", "untrained"]


def test_diverged_run_is_ranked_after_other_runs(groups):
    at = lambda result, loss: replace(
        result, measurement=replace(result.measurement, curves={"loss": Band([loss], [loss])})
    )
    group = replace(groups[0], runs=[at(groups[0].runs[0], np.nan), at(groups[0].runs[1], 0.5)])
    assert [result.label for result in group.results] == ["joint training", "MAML", "untrained"]
    assert "MAML diverged." in sentences.verdict(group)
    assert "no gain" not in sentences.verdict(replace(group, runs=group.runs[:1]))


def test_baselines_are_untrained(groups, runs):
    trained = load_trained(runs[2])
    blank = replace(trained, params=trained.experiment.init_params())
    assert groups[1].baselines[0].value == measure(blank, num_tasks=6).value


def test_labels_always_differ(runs):
    maml, joint = load_trained(runs[0]), load_trained(runs[1])
    assert measurements.labels_of([maml, joint]) == ["MAML", "joint training"]
    assert measurements.labels_of([maml, replace(maml, source="b/x")]) == ["sinusoid-maml", "x"]
    assert measurements.labels_of([replace(maml, source="a/x"), replace(maml, source="b/x")]) == [
        "a/x",
        "b/x",
    ]
    assert len(set(measurements.labels_of([maml, maml]))) == 2


def test_weights_file_has_no_training_metrics(runs):
    result = measurements.gather([load_trained(runs[0] / "weights.safetensors")], 4)[0].runs[0]
    assert (result.metrics, result.environment, result.trained.folder) == ([], {}, None)


def test_problem_titles_describe_the_data(runs):
    maml = load_trained(runs[0])
    for change, words in (
        ({"protocol": "reptile"}, "Sinusoid regression, 10 points, Reptile's protocol"),
        ({"dataset": "omniglot", "ways": 20, "rotations": True}, "Omniglot with rotations, 20-way 10-shot"),
        ({"dataset": "folder", "folder": "a/birds", "ways": 3}, "Images of birds, 3-way 10-shot"),
    ):
        config = replace(maml.config, data=replace(maml.config.data, **change))
        other = replace(maml, experiment=maml.experiment.with_config(config))
        assert measurements._problem(other) == words
