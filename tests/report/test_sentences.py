from dataclasses import replace

import numpy as np
import pytest

from innerloop.report.sentences import adaptation_caption, conditions, training_caption, verdict
from innerloop.training.measurement import Band


def at(result, value, ci95=0.01, sign=1):
    """A result of this value, on two tasks."""
    scores = value + sign * ci95 / 2 * np.array([-1, 1])
    curves = {result.score: Band([value], [ci95])}
    measurement = replace(result.measurement, steps=[0], curves=curves, task_scores=scores)
    return replace(result, measurement=measurement)


def test_verdict_states_clear_gain_with_numbers(groups):
    group = groups[1]
    told = verdict(replace(group, runs=[at(group.runs[0], 0.9)], baselines=[at(group.baselines[0], 0.4)]))
    assert "FOMAML classifies 90.00 ± 1.00 % of the queries of new classes correctly" in told
    assert "untrained reaches 40.00 ± 1.00 %" in told
    assert "training gained 50.00 ± 0.00 points (compared task by task)" in told


def test_verdict_states_no_gain(groups):
    group = groups[1]
    told = verdict(
        replace(group, runs=[at(group.runs[0], 0.401)], baselines=[at(group.baselines[0], 0.4, sign=-1)])
    )
    assert "shows no gain" in told


@pytest.mark.parametrize(("other", "words"), [(0.201, "cannot be distinguished"), (0.9, "Next comes MAML")])
def test_verdict_ranks_runner_up_only_if_distinguishable(groups, other, words):
    group = groups[0]
    runs = [at(group.runs[0], other, sign=-1), at(group.runs[1], 0.2)]
    told = verdict(replace(group, runs=runs, baselines=[]))
    assert "joint training predicts it with a squared error of 0.200 ± 0.010" in told
    assert words in told


def logged(run, **values):
    """A run that logged these values beside its training."""
    return replace(run, metrics=[{"step": 2, "outer_loss": 1.0, **values}])


def test_captions_match_plotted_runs(groups):
    """They compare algorithms where there are several and a validation to compare them by."""
    maml, joint = groups[0].runs
    only = lambda *runs: training_caption(replace(groups[0], runs=list(runs)))
    assert "compare them by validation" in only(maml, joint)
    assert "Reptile" not in only(maml, joint)
    assert only(maml) == "Means over each block of meta-steps."
    assert only(logged(maml), logged(joint)) == "Means over each block of meta-steps."
    config = replace(joint.trained.config, algorithm="reptile")
    reptile = replace(
        joint, trained=replace(joint.trained, experiment=joint.trained.experiment.with_config(config))
    )
    assert "(Reptile's is that of its last inner step): compare them by validation" in only(maml, reptile)
    assert "several seeds" not in adaptation_caption(groups[0])


def test_training_caption_mentions_diverged_tasks(groups):
    maml, joint = groups[0].runs
    spoilt = logged(maml, validation_loss=0.5, validation_diverged=1.0)
    told = training_caption(replace(groups[0], runs=[spoilt, joint]))
    assert told.endswith("Validation excludes tasks that diverged: MAML up to 1 of 4.")


def test_conditions_explain_normalisation_only_if_used(groups):
    assert "all queries of the task together (transductive)" in conditions(groups[1])
    assert "ormalisation" not in conditions(groups[0])
    assert "6 tasks" in conditions(groups[0])
