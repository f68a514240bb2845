"""Several seeds as one result, and results compared in pairs."""

import re
from dataclasses import replace

import jax
import numpy as np
import pytest

from innerloop.io.files import new_output
from innerloop.io.text import with_interval
from innerloop.report import measurements, run_page, summary
from innerloop.report.comparison import compare, group_by_seed
from innerloop.report.sentences import conditions, verdict
from innerloop.training.measure import measure
from innerloop.training.trained import load_trained


def seeded(trained, seed, shift=0.0):
    """The run as if it had been trained with another seed: other weights."""
    key = jax.random.key(seed)
    move = lambda x: x + 0.02 * jax.random.normal(key, x.shape) + shift
    config = replace(trained.config, seed=seed)
    params = jax.tree.map(move, trained.params)
    return replace(trained, params=params, experiment=trained.experiment.with_config(config))


@pytest.fixture(scope="module")
def maml(runs):
    return load_trained(runs[0])


@pytest.fixture(scope="module")
def joint(runs):
    return load_trained(runs[1])


@pytest.fixture(scope="module")
def group(maml, joint):
    """Three seeds of MAML, whose errors are large, and two of joint training."""
    trained = [
        seeded(maml, 0, 2.0),
        seeded(joint, 0),
        seeded(maml, 1, 2.0),
        seeded(maml, 2, 2.0),
        seeded(joint, 1),
    ]
    (found,) = measurements.gather(trained, 6)
    return found


def test_seeds_are_summarized_by_mean_and_spread(group, maml):
    assert [run.label for run in group.runs] == ["MAML", "joint training"]
    values = [measure(seeded(maml, seed, 2.0), num_tasks=6).value for seed in range(3)]
    first = group.runs[0]
    assert [run.value for run in first.seeds] == values
    assert [run.label for run in first.seeds] == [f"MAML, seed {seed}" for seed in range(3)]
    assert first.value == pytest.approx(np.mean(values))
    assert first.ci95 == pytest.approx(np.std(values, ddof=1))


def test_ranking_uses_means_over_seeds(group):
    """The headline and the order go by the means; no seed is the best run."""
    assert [run.label for run in group.results] == ["joint training", "MAML", "untrained"]
    told = verdict(group)
    value = with_interval(group.runs[1].value, group.runs[1].ci95, "loss")
    assert (
        f"joint training predicts it with a squared error of {value} (mean and standard deviation over 2 seeds)"
        in told
    )
    assert "Next comes MAML with" in told
    assert "(compared seed by seed, 2 seeds)" in told
    assert "Rows of several seeds: mean ± standard deviation over seeds." in conditions(group)


def test_group_by_seed_requires_equal_settings(maml, joint):
    other = replace(maml.config, inner=replace(maml.config.inner, learning_rate=0.5), seed=3)
    faster = replace(maml, experiment=maml.experiment.with_config(other))
    chunked = replace(maml.config, outer=replace(maml.config.outer, chunk=1), seed=4)
    small = replace(maml, experiment=maml.experiment.with_config(chunked))
    found = group_by_seed([seeded(maml, 0), faster, joint, seeded(maml, 1), small])
    assert [[t.config.seed for t in family] for family in found] == [[0, 1, 4], [3], [0]]
    assert [len(family) for family in group_by_seed([maml, replace(maml, source="a copy")])] == [1, 1]
    start = replace(maml.config, model=replace(maml.config.model, start="x"), seed=5)
    assert len(group_by_seed([maml, replace(maml, experiment=maml.experiment.with_config(start))])) == 2


def result(group, values, scores, seeds=(0,)):
    """A result of these values of seeds and these scores of tasks; lower is better."""
    run, found = group.runs[0].seeds[0], []
    for seed, value in zip(seeds, values, strict=True):
        band = run.measurement.curve._replace(mean=[value])
        config = replace(run.trained.config, seed=seed)
        trained = replace(run.trained, experiment=run.trained.experiment.with_config(config))
        measurement = replace(run.measurement, curves={"loss": band}, task_scores=np.array(scores))
        found.append(replace(run, trained=trained, measurement=measurement))
    return replace(found[0], seeds=tuple(found)) if len(found) > 1 else found[0]


def test_single_runs_are_compared_task_by_task(group):
    """Scores that vary widely over tasks and always differ by about one: far apart in pairs, one cloud without."""
    scores = np.array([1.0, 10.0, 100.0, 1000.0])
    a, b = result(group, [0.0], scores), result(group, [0.0], scores + [1.0, 1.1, 0.9, 1.0])
    found = compare(a, b)
    assert found.mean == pytest.approx(1.0)
    assert 0 < found.ci95 < 0.2
    assert (found.sign, compare(b, a).sign, compare(a, a).sign) == (1, -1, 0)
    assert found.pairs == "task by task"


def test_seeds_are_compared_in_pairs(group):
    a = result(group, [5.0, 3.0, 1.0], [0.0, 0.0], seeds=(0, 1, 2))
    b = result(group, [1.12, 3.1, 5.1, 9.0], [9.0, 9.0], seeds=(2, 1, 0, 7))
    found = compare(a, b)
    assert found.mean == pytest.approx((0.1 + 0.1 + 0.12) / 3)
    assert (found.sign, found.pairs) == (1, "seed by seed, 3 seeds")
    assert compare(a, result(group, [1.0], [9.0, 9.0])).pairs == "task by task"


def test_runs_on_different_tasks_are_not_paired(group):
    """Other numbers of queries, or other test data as the runs recorded them."""
    a, b = (result(group, [value], [value, value + 1]) for value in (2.0, 1.5))
    other = replace(b, measurement=replace(b.measurement, queries=99))
    found = compare(a, other)
    assert (found.mean, found.pairs) == (pytest.approx(-0.5), "not in pairs: other tasks")
    assert found.ci95 == pytest.approx(np.hypot(a.ci95, b.ci95))
    with_data = lambda run, name: replace(run, environment={"data": {"test": name}})
    assert compare(with_data(a, "x"), with_data(b, "x")).pairs == "task by task"
    assert compare(with_data(a, "x"), with_data(b, "y")).pairs == "not in pairs: other tasks"


def test_summary_adds_columns_for_differing_conditions(group):
    rows = summary.rows([group])
    assert tuple(summary.heads(rows)) == summary.HEADS
    queries = rows[0].queries
    assert summary.note(rows).endswith(f" All rows: queries: {queries}.")
    rows[1] = replace(rows[1], queries=99, diverged=3)
    assert summary.heads(rows)[-2:] == ["queries", "diverged tasks"]
    assert [cells[-2:] for cells in summary.table_of(rows)] == [[str(queries), "0"], ["99", "3"]]
    assert {"queries", "normalization", "diverged"} < set(summary.as_csv(rows).split("\n")[0].split(","))
    assert r"\begin{tabular}{llrlrrlrrrr}" in summary.as_latex(rows)


def test_non_finite_difference_has_no_sign(group):
    a, b = (result(group, [0.0], [1.0, scores]) for scores in (np.nan, 2.0))
    assert compare(a, b).sign == 0


@pytest.mark.usefixtures("undrawn")
def test_page_lists_mean_and_seeds(group, tmp_path):
    run_page.write([group], new_output(tmp_path / "page.html", overwrite=False))
    page = (tmp_path / "page.html").read_text()
    rows = [re.sub("<[^>]*>", "|", row) for row in re.findall(r'<tr class="[a-z]*">.*?</tr>', page)]
    names = [row.strip("|").split("|")[0] for row in rows][:8]
    assert names[:3] == ["joint training, 2 seeds", "joint training, seed 0", "joint training, seed 1"]
    assert names[3:7] == ["MAML, 3 seeds", "MAML, seed 0", "MAML, seed 1", "MAML, seed 2"]
    assert "Report on 5 runs" in page


def test_figures_show_means_and_individual_seeds(group):
    (axes,) = run_page.adaptation_figure(group).axes
    assert len(axes.lines) == 3
    figure = run_page.training_figure(group)
    assert figure is not None
    assert len(figure.axes[0].lines) == 5
    legend = figure.axes[0].get_legend()
    assert legend is not None
    assert [text.get_text() for text in legend.get_texts()] == ["MAML", "joint training"]


def test_untrained_joint_baseline_has_one_output_per_way(runs):
    """Untrained, too, it meets tasks with one output per way, not with one per training class."""
    trained = load_trained(runs[2])
    config = replace(trained.config, algorithm="joint")
    joint = replace(trained, experiment=trained.experiment.with_config(config))
    (_, blank), *_ = measurements._beginnings([joint])
    assert blank.params.head.weight.shape[1] == config.data.ways
