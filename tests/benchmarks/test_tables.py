"""The comparison on tables: folds, baselines against closed forms, and the guide is what its result file says."""

import json

import numpy as np
import pandas as pd
import pytest
from benchmarks.tables import baselines, page
from benchmarks.tables.__main__ import RESULTS
from benchmarks.tables.families import FAMILIES, Family, folds


def lines(groups=24, rows=9):
    """Lines of one slope with other offsets, and noise."""
    rng = np.random.default_rng(0)
    group, x = np.repeat(np.arange(groups), rows), rng.normal(size=groups * rows)
    y = rng.normal(0, 2, groups)[group] + x + rng.normal(0, 0.5, groups * rows)
    return pd.DataFrame({"g": group, "x": x, "y": y})


@pytest.fixture(scope="module")
def found():
    family = Family("lines", "lines: y", "none lines", lines, "g", ("x",), "y")
    return folds(family, count=3, draws=2, shots=(1, 3))


def test_each_group_is_in_exactly_one_test_fold(found):
    names = [name for fold in found for name in fold.table.test.names]
    assert sorted(names) == sorted(map(str, range(24)))
    for fold in found:
        assert not set(fold.table.test.names) & {*fold.table.train.names, *fold.table.validation.names}
        assert fold.test[1].query.inputs.shape[:2] == (2 * len(fold.table.test), 9 - 3)


def test_smaller_shots_mask_the_largest_draw(found):
    one, three = found[0].test[1], found[0].test[3]
    assert np.array_equal(one.query.targets, three.query.targets)
    assert np.asarray(one.support.mask).sum(1).tolist() == [1] * len(one.support.mask)
    assert np.array_equal(one.support.inputs, three.support.inputs)


def test_errors_are_rmse_over_unmasked_rows(found):
    tasks = found[0].test[3]
    targets = np.asarray(tasks.query.targets)[..., 0]
    assert baselines.errors(tasks, targets) == pytest.approx(0)
    assert baselines.errors(tasks, targets + 2) == pytest.approx(2)


def test_alone_baseline_with_one_shot_predicts_its_target(found):
    predicted = baselines.alone(found[0])(found[0].test[1], 1)
    assert np.allclose(predicted, np.asarray(found[0].test[1].support.targets)[:, :1, 0])


def test_mixed_model_recovers_offsets_and_slope(found):
    """After one example the offset is shrunk by its share of the variance, 4 / (4 + 0.25)."""
    fold, tasks = found[0], found[0].test[1]
    scale = fold.table.preparation.y[0].scale
    predict = baselines._mixed(fold, 1, 0)
    assert predict is not None
    predicted = predict(tasks, 1)
    x, y = (np.asarray(part)[:, 0, 0] for part in (tasks.support.inputs, tasks.support.targets))
    slope, share = fold.table.preparation.x[0].scale / scale, 4 / 4.25
    wanted = slope * np.asarray(tasks.query.inputs)[..., 0] + share * (y - slope * x)[:, None]
    assert np.abs(predicted - wanted).max() < 0.25
    assert baselines.errors(tasks, predicted).mean() < 0.45


def test_gaussian_process_improves_with_more_examples(found):
    fold = found[0]
    predict = baselines.gaussian_process(fold)
    few, more = (baselines.errors(fold.test[k], predict(fold.test[k], k)).mean() for k in (1, 3))
    assert more < few < 0.5


def test_guide_matches_result_file(tmp_path, monkeypatch):
    copy = tmp_path / "guide.md"
    copy.write_text(page.PAGE.read_text())
    monkeypatch.setattr(page, "PAGE", copy)
    page.write_page(json.loads(RESULTS.read_text()))
    assert copy.read_text() == (RESULTS.parents[2] / "docs/guides/when-is-it-worth-it.md").read_text()


def test_result_file_has_every_family_and_method():
    families = json.loads(RESULTS.read_text())["families"]
    assert set(families) == {family.name for family in FAMILIES}
    for family in families.values():
        assert set(family["methods"]) == set(page.METHODS)
