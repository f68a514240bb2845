from dataclasses import replace

import pytest

from innerloop.report.sentences import _differ, conditions, verdict
from innerloop.training.measurement import Band


def at(result, value, ci95=0.01):
    curves = {result.score: Band([value], [ci95])}
    return replace(result, measurement=replace(result.measurement, steps=[0], curves=curves))


def test_a_clear_gain_is_told_with_its_numbers(groups):
    group = groups[1]
    told = verdict(replace(group, runs=[at(group.runs[0], 0.9)], baselines=[at(group.baselines[0], 0.4)]))
    assert "FOMAML classifies 90.00 ± 1.00 % of the queries of new classes correctly" in told
    assert "untrained is at 40.00 ± 1.00 %" in told
    assert "training is what makes the difference" in told


def test_no_gain_is_told_too(groups):
    group = groups[1]
    told = verdict(replace(group, runs=[at(group.runs[0], 0.41)], baselines=[at(group.baselines[0], 0.4)]))
    assert "brought no gain" in told


@pytest.mark.parametrize(("other", "words"), [(0.215, "the intervals overlap"), (0.9, "Next comes MAML")])
def test_the_next_best_is_ranked_only_beyond_the_intervals(groups, other, words):
    group = groups[0]
    told = verdict(replace(group, runs=[at(group.runs[0], other), at(group.runs[1], 0.2)], baselines=[]))
    assert "joint training predicts it with a squared error of 0.200 ± 0.010" in told
    assert words in told


def test_lower_is_better_for_errors(groups):
    low, high = at(groups[0].runs[0], 0.1), at(groups[0].runs[1], 0.5)
    assert (_differ(low, high), _differ(high, low), _differ(low, low)) == (1, -1, 0)


def test_conditions_explain_normalisation_where_there_is_any(groups):
    assert "transductive is all queries" in conditions(groups[1])
    assert "ormalisation" not in conditions(groups[0])
    assert "6 tasks" in conditions(groups[0])
