"""Groups of a table as tasks: rows, scaling, categories, missing values, splits, and windows."""

import pickle
import warnings

import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pandas as pd
import pytest
from hypothesis import given, settings

import innerloop as il
from innerloop import tables
from innerloop.engine.evaluation.evaluate import evaluator
from innerloop.errors import InnerloopError
from innerloop.tasks.tables import traced
from innerloop.tasks.tables.columns import column_of
from innerloop.tasks.tables.preparation import Category, Number, Preparation

PARTS = ("train", "validation", "test")


def schools(groups=160, seed=0, **columns):
    """A table of unequal groups; each pupil has a unique `id`, which is also the score."""
    rng = np.random.default_rng(seed)
    counts = rng.integers(2, 30, groups)
    rows = int(counts.sum())
    found = {
        "school": np.repeat([f"s{i:03d}" for i in range(groups)], counts),
        "ses": rng.normal(3, 2, rows),
        "sex": rng.choice(["F", "M"], rows),
        "score": np.arange(rows, dtype=float),
    }
    return pd.DataFrame(found | columns).sample(frac=1, random_state=seed)


def groups_of(table):
    return {part: set(getattr(table, part).names) for part in PARTS}


def parts(table):
    return [getattr(table, part) for part in PARTS]


def used(batch):
    """The rows of a batch that count."""
    mask = slice(None) if batch.mask is None else np.asarray(batch.mask)
    return np.asarray(batch.inputs)[mask], np.asarray(batch.targets)[mask]


def rows_of(tasks, number, seed=0):
    """The ids of the support and query rows of one group, from targets."""
    task = tasks.task(number, jax.random.key(seed))
    return used(task.support)[1][:, 0].tolist(), used(task.query)[1][:, 0].tolist()


def test_all_rows_of_160_ragged_groups_are_used():
    frame = schools()
    table = tables.from_frame(frame, task="school", x=["ses", "sex"], y="score", shots=5)
    restored = []
    for tasks in parts(table):
        for number in range(len(tasks)):
            support, query = rows_of(tasks, number)
            restored += table.restore(np.array(support + query)).round().astype(int).tolist()
    assert sorted(restored) == list(range(len(frame)))
    assert table.left_out == {}
    assert repr(table.test) == "<GroupTasks: 32 groups, 529 rows, shots=5, queries=None, gap=None>"
    assert len(repr(table)) < 1000


def test_train_evaluate_and_predict_from_frame():
    frame = schools(40)
    table = il.tables.from_frame(frame, task="school", x=["ses", "sex"], y="score", shots=3)
    algorithm = il.maml(il.mean_squared_error(), il.InnerLoop(optax.sgd(0.05), steps=2))
    loop = il.OuterLoop(algorithm, optax.adam(1e-3), table.train, meta_batch=4)
    model = il.MLP(table.preparation.features, table.preparation.outputs, hidden=(8,), key=jax.random.key(0))
    state, _ = loop.run(loop.init(model, jax.random.key(1)), steps=3)
    curve = il.evaluate(algorithm, state.params, table.test, key=jax.random.key(2))
    known = frame[frame.school == table.test.names[0]]
    learner = il.Learner(state.params, algorithm).fit(*table.prepare(known)[:2])
    predicted = table.restore(learner.predict(table.inputs(known)))
    assert curve.tasks == len(table.test)
    assert predicted.shape == (len(known), 1)


def test_each_held_out_group_is_evaluated_once():
    table = tables.from_frame(schools(30), task="school", x=["ses"], y="score", shots=3)
    algorithm = il.maml(il.mean_squared_error(), il.InnerLoop(optax.sgd(0.0), steps=1))
    size = lambda adapted, task: {"rows": task.support.mask.sum() + task.query.mask.sum()}
    model = il.MLP(1, 1, key=jax.random.key(0))
    curve = il.evaluate(algorithm, model, table.test, size, key=jax.random.key(1))
    assert curve.scores["rows"][:, 0].tolist() == list(table.test.sizes)
    with pytest.raises(InnerloopError, match="the set has 6 tasks, got 7"):
        il.evaluate(algorithm, model, table.test, key=jax.random.key(1), num_tasks=7)


def test_validation_measures_each_group_at_most_once():
    table = tables.from_frame(schools(30), task="school", x=["ses"], y="score", shots=3)
    algorithm = il.maml(il.mean_squared_error(), il.InnerLoop(optax.sgd(0.0), steps=1))
    run = evaluator(algorithm, table.validation, num_tasks=50)
    (curve,) = run(il.MLP(1, 1, key=jax.random.key(0)), jax.random.key(1))
    assert curve.tasks == len(table.validation) == 5


def test_scaling_uses_only_training_groups():
    frame = schools(20)
    split = {
        "train": [f"s{i:03d}" for i in range(10)],
        "validation": ["s010", "s011"],
        "test": ["s012", "s013"],
    }
    train = frame[frame.school.isin(split["train"])]
    frame.loc[~frame.school.isin(split["train"]), ["ses", "score"]] *= 1000.0
    table = tables.from_frame(frame, task="school", x=["ses"], y="score", split=split)
    (ses,), (score,) = table.preparation.x, table.preparation.y
    assert isinstance(ses, Number)
    assert isinstance(score, Number)
    assert (ses.mean, ses.scale) == pytest.approx((train.ses.mean(), train.ses.std(ddof=0)))
    assert (score.mean, score.scale) == pytest.approx((train.score.mean(), train.score.std(ddof=0)))
    assert np.asarray(table.train.inputs).mean() == pytest.approx(0, abs=1e-5)
    assert np.asarray(table.train.inputs).std() == pytest.approx(1, abs=1e-5)
    assert abs(np.asarray(table.test.inputs)).max() > 100


def test_restore_returns_original_units():
    frame = schools(20).assign(other=lambda f: -7 * f.score)
    table = tables.from_frame(frame, task="school", x=["ses"], y=["score", "other"])
    batch = table.prepare(frame)
    assert batch.targets.shape == (len(frame), 2)
    assert np.allclose(table.restore(batch.targets)[:, 0], frame.score, atol=1e-2)
    assert np.allclose(table.restore(batch.targets)[:, 1], -7 * frame.score, atol=1e-1)


@pytest.mark.parametrize("value", [1.5, 0.3])
def test_constant_column_has_unit_scale(value):
    """Nor by the rounding of its mean: the deviation of 0.3 is computed as 5e-17."""
    table = tables.from_frame(schools(20, ses=value), task="school", x=["ses"], y="score")
    assert table.preparation.x == (Number("ses", value, 1.0),)
    assert (np.asarray(table.train.inputs) == 0).all()


def test_missing_values_warn_and_are_dropped():
    frame = schools(20)
    frame.iloc[3, 1], frame.iloc[7, 3], frame.iloc[8, 2], frame.iloc[9, 0] = np.nan, np.nan, None, None
    told = r"4 of \d+ rows with missing values are left out \(school: 1, ses: 1, sex: 1, score: 1\)"
    with pytest.warns(UserWarning, match=told):
        table = tables.from_frame(frame, task="school", x=["ses", "sex"], y="score")
    assert table.left_out == {"missing values": 4}
    assert sum(sum(tasks.sizes) for tasks in parts(table)) == len(frame) - 4
    with pytest.raises(InnerloopError, match=r"no value may be missing, got 4 of \d+ rows"):
        tables.from_frame(frame, task="school", x=["ses", "sex"], y="score", missing="refuse")


def test_single_row_groups_warn_and_are_dropped():
    frame = pd.concat([schools(20), schools(1).head(1).assign(school="alone")])
    with pytest.warns(UserWarning, match="1 of 21 groups with fewer than 2 rows are left out: alone"):
        table = tables.from_frame(frame, task="school", x=["ses"], y="score")
    assert table.left_out == {"groups that are too small": 1}


def test_categories_come_from_training_groups():
    frame = schools(20)
    split = {
        "train": [f"s{i:03d}" for i in range(10)],
        "validation": ["s010", "s011"],
        "test": ["s012", "s013"],
    }
    where = frame.school == "s012"
    frame.loc[where, "sex"] = "X"
    told = rf"1 value of column 'sex' not in any training group \(X\), found in {where.sum()} rows?"
    with pytest.warns(UserWarning, match=told):
        table = tables.from_frame(frame, task="school", x=["sex", "ses"], y="score", split=split)
    assert table.preparation.x[0] == Category("sex", ("F", "M"))
    inputs = used(table.test.task(0, jax.random.key(0)).query)[0]
    assert (inputs[:, :2] == 0).all()
    inputs = used(table.test.task(1, jax.random.key(0)).query)[0]
    assert (inputs[:, :2].sum(1) == 1).all()


def test_numbers_can_be_categories():
    frame = schools(20).assign(region=lambda f: np.arange(len(f)) % 3)
    table = tables.from_frame(frame, task="school", x=["region"], y="score", categories=["region"])
    assert table.preparation.x == (Category("region", ("0", "1", "2")),)
    assert table.preparation.features == 3


def test_text_target_is_classification():
    table = tables.from_frame(schools(20), task="school", x=["ses"], y="sex", shots=4)
    assert table.preparation.classes == ("F", "M")
    assert table.preparation.outputs == 2
    algorithm = il.maml(il.cross_entropy(), il.InnerLoop(optax.sgd(0.1), steps=1))
    loop = il.OuterLoop(algorithm, optax.adam(1e-3), table.train, meta_batch=3)
    state, info = loop.run(loop.init(il.MLP(1, 2, hidden=(4,), key=jax.random.key(0)), jax.random.key(1)), 2)
    assert np.isfinite(info.outer_loss).all()
    batch = table.prepare({"ses": [0.0, 1.0], "sex": ["M", "F"]})
    assert batch.targets.tolist() == [1, 0]
    assert table.restore([[0.1, 0.9], [2.0, -1.0]]).tolist() == ["M", "F"]
    with pytest.raises(InnerloopError, match="column 'sex' has a class that no training group has, got 'X'"):
        table.prepare({"ses": [0.0], "sex": ["X"]})


def test_group_split_is_disjoint_and_determined_by_seed():
    frame = schools(50)
    split = lambda seed: groups_of(tables.from_frame(frame, task="school", x=["ses"], y="score", seed=seed))
    first = split(0)
    assert first == split(0)
    assert first != split(1)
    assert {part: len(names) for part, names in first.items()} == {"train": 32, "validation": 8, "test": 10}
    assert set().union(*first.values()) == set(frame.school)
    assert sum(map(len, first.values())) == 50


def test_split_does_not_depend_on_row_order():
    frame = schools(50)
    make = lambda frame: groups_of(tables.from_frame(frame, task="school", x=["ses"], y="score"))
    assert make(frame) == make(frame[::-1])


ragged = st.lists(st.integers(2, 9), min_size=6, max_size=14)


@settings(max_examples=25)
@given(counts=ragged, shots=st.one_of(st.none(), st.integers(1, 12)), seed=st.integers(0, 99))
def test_each_row_is_in_support_or_query_exactly_once(counts, shots, seed):
    names = np.repeat([f"g{i}" for i in range(len(counts))], counts)
    order = np.random.default_rng(seed).permutation(len(names))
    frame = {
        "g": names[order],
        "x": np.arange(len(names))[order] * 1.0,
        "y": np.arange(len(names))[order] * 1.0,
    }
    table = tables.from_frame(frame, task="g", y="y", shots=shots, seed=seed)
    for tasks in parts(table):
        for number, count in enumerate(tasks.sizes):
            support, query = rows_of(tasks, number, seed)
            found = table.restore(np.array(support + query)).round().astype(int)
            wanted = np.flatnonzero(names == tasks.names[number])
            assert sorted(found) == wanted.tolist()
            assert len(support) == (count // 2 if shots is None else min(shots, count - 1))


def test_draws_differ_between_keys():
    table = tables.from_frame(schools(10), task="school", x=["ses"], y="score", shots=2)
    largest = int(np.argmax(table.train.sizes))
    drawn = {tuple(sorted(rows_of(table.train, largest, seed)[0])) for seed in range(8)}
    assert len(drawn) > 5


def test_queries_argument_bounds_query_rows():
    table = tables.from_frame(schools(10), task="school", x=["ses"], y="score", shots=2, queries=3)
    assert all(
        len(rows_of(table.train, i)[1]) == min(3, n - min(2, n - 1)) for i, n in enumerate(table.train.sizes)
    )


def test_equal_groups_need_no_mask():
    frame = {"g": np.repeat(np.arange(8), 6), "x": np.arange(48.0), "y": np.arange(48.0)}
    task = tables.from_frame(frame, task="g", y="y", shots=2).train.sample(jax.random.key(0))
    assert task.support.mask is None
    assert task.query.mask is None
    assert task.query.inputs.shape == (4, 1)


def test_prepare_matches_training_rows():
    frame = schools(20)
    table = tables.from_frame(frame, task="school", x=["sex", "ses"], y="score")
    name = table.train.names[0]
    rows = frame[frame.school == name]
    batch = table.prepare(rows)
    start, count = int(table.train.starts[0]), table.train.sizes[0]
    assert np.array_equal(batch.inputs, np.asarray(table.train.inputs[start : start + count]))
    assert np.array_equal(batch.targets, np.asarray(table.train.targets[start : start + count]))
    assert np.array_equal(batch.inputs, table.inputs(rows[["ses", "sex"]]))


def test_preparation_json_round_trip():
    preparation = tables.from_frame(schools(20), task="school", x=["sex", "ses"], y="score").preparation
    assert tables.Preparation.from_json(preparation.to_json(), "table.json") == preparation
    for damaged in ("[]", "{}", '{"task": "a", "x": [{"name": "a", "mean": 0, "scale": 0}], "y": []}', "x"):
        with pytest.raises(InnerloopError, match=r"table\.json"):
            tables.Preparation.from_json(damaged, "table.json")


class Polars:
    """As a Polars frame: columns by name, and nothing of pandas."""

    def __init__(self, columns):
        self.held, self.columns = columns, list(columns)

    def __getitem__(self, name):
        return self.held[name]


@pytest.mark.parametrize("make", [dict, Polars, pd.DataFrame])
def test_frames_of_any_library_are_accepted(make):
    columns = schools(12).to_dict("list")
    table = tables.from_frame(make(columns), task="school", y="score")
    assert [column.name for column in table.preparation.x] == ["ses", "sex"]


def test_unnamed_columns_are_referenced_by_number():
    frame = pd.DataFrame(list(schools(12).itertuples(index=False, name=None)))
    table = tables.from_frame(frame, task="0", y="3")
    assert [column.name for column in table.preparation.x] == ["1", "2"]


BEYOND = 2**53 + 3 * np.arange(8)
"""Integers that float64 rounds to one another."""


@pytest.mark.parametrize(
    "names", [BEYOND, BEYOND.astype(np.uint64), pd.Series(BEYOND, dtype="Int64"), BEYOND.tolist()]
)
def test_large_integer_names_stay_distinct(names):
    """Of groups and of categories; `split` names them as the table does."""
    wanted = [str(n) for n in BEYOND]
    assert column_of({"a": names}, "a", "test", text=True).values.tolist() == wanted
    frame = {"g": np.repeat(np.asarray(BEYOND), 3), "x": np.arange(24.0), "y": np.arange(24.0)}
    split = {"train": np.asarray(BEYOND)[:4], "validation": list(names)[4:6], "test": pd.Series(names)[6:]}
    table = tables.from_frame(frame, task="g", y="y", split=split)
    assert [list(tasks.names) for tasks in parts(table)] == [wanted[:4], wanted[4:6], wanted[6:]]


def test_split_accepts_numeric_group_names():
    frame = {"g": np.repeat(np.arange(8.0), 3), "x": np.arange(24.0), "y": np.arange(24.0)}
    split = {"train": np.arange(4.0), "validation": [4, "5"], "test": (6.0, 7)}
    table = tables.from_frame(frame, task="g", y="y", split=split)
    assert table.validation.names == ("4", "5")


@pytest.mark.parametrize(
    ("values", "wanted"),
    [
        (pd.Series([1, None, 3], dtype="Int64"), [1.0, None, 3.0]),
        ([True, False], [1.0, 0.0]),
        ([1, None, 2.5], [1.0, None, 2.5]),
        (pd.Series(["a", None, "b"]), ["a", None, "b"]),
        (pd.Categorical(["a", "b", None]), ["a", "b", None]),
        (["a", 1, 2.0, np.nan], ["a", "1", "2", None]),
    ],
)
def test_column_of_handles_many_dtypes(values, wanted):
    column = column_of({"a": values}, "a", "test")
    assert [None if gone else x for x, gone in zip(column.values, column.missing, strict=True)] == wanted


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"task": "town"},
            "there is no column with this name, got 'town'; choose among: school, ses, sex, score",
        ),
        ({"y": "ses"}, "a column must have one role, got 'ses' twice"),
        ({"x": "ses"}, r"`x` must be a list of columns, got 'ses'; pass x=\['ses'\]"),
        ({"x": []}, "`x` must name at least one column"),
        ({"categories": ["town"]}, "`categories` names a column that is not used"),
        ({"shots": 0}, "`shots` must be 1 or more"),
        ({"queries": 0}, "`queries` must be 1 or more"),
        ({"split": (0.5, 0.5, 0.5)}, "`split` must be three positive fractions"),
        ({"split": {"train": ["s000"], "test": ["s001"]}}, "`split` must name the groups of each part"),
        (
            {"split": {"train": ["s000"], "validation": "s001", "test": ["s002"]}},
            "`split` must name the groups of each part",
        ),
        (
            {"split": {"train": np.array([]), "validation": ["s001"], "test": ["s002"]}},
            "`split` must name the groups of each part",
        ),
        (
            {"split": {"train": ["s000"], "validation": ["s001"], "test": ["s000"]}},
            "a group must be in only one part",
        ),
        (
            {"split": {"train": ["s000"], "validation": ["s001"], "test": ["?"]}},
            "that the table does not have",
        ),
        ({"y": ["score", "sex"], "x": ["ses"]}, "a class must be the only column of `y`"),
    ],
)
def test_invalid_arguments_raise(change, message):
    with pytest.raises(InnerloopError, match=message):
        tables.from_frame(schools(10), **{"task": "school", "x": ["ses"], "y": "score"} | change)


@pytest.mark.parametrize(
    ("frame", "message"),
    [
        (3, "`frame` must be a table with named columns, got int"),
        (schools(4), "a split needs at least 6 groups, got 4"),
        (schools(10, ses=np.inf), "column 'ses' must be finite"),
        (schools(10, ses=pd.Timestamp("2024-01-01")), "column 'ses' must hold numbers or text"),
        (schools(10, ses=np.nan), "every row has a missing value"),
        ({"school": ["a"], "ses": [1.0, 2.0], "score": [1.0]}, "columns must have the same length"),
        ({"school": [], "ses": [], "score": []}, "the table has no rows"),
        ({"school": list("abcdef"), "ses": range(6), "score": range(6)}, "a task needs 2 rows, and no group"),
    ],
)
def test_invalid_tables_raise(frame, message):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(InnerloopError, match=message):
            tables.from_frame(frame, task="school", x=["ses"], y="score")


def test_missing_or_wrong_values_in_new_rows_raise():
    table = tables.from_frame(schools(10), task="school", x=["ses", "sex"], y="score")
    with pytest.raises(InnerloopError, match="column 'ses' has no value in row 2; fill it"):
        table.inputs({"ses": [1.0, np.nan], "sex": ["F", "M"]})
    with pytest.raises(InnerloopError, match="column 'ses' must hold numbers, as in training, got 'high'"):
        table.inputs({"ses": ["high"], "sex": ["F"]})


def series(count=8, length=30, gap_in=None):
    """Series whose value is their number times 1000 plus the time."""
    number, time = np.repeat(np.arange(count), length), np.tile(np.arange(length), count)
    frame = pd.DataFrame({"s": number, "t": time, "v": 1000.0 * number + time})
    return frame if gap_in is None else frame[~((frame.s == gap_in) & (frame.t == 10))]


def test_windows_are_consecutive_with_target_at_horizon():
    table = tables.windows(
        series().sample(frac=1, random_state=0), task="s", time="t", y="v", length=4, horizon=3
    )
    assert [c.name for c in table.preparation.x] == ["v (-3)", "v (-2)", "v (-1)", "v (0)"]
    assert table.train.sizes[0] == 30 - 4 - 3 + 1
    means, scales = (np.array([getattr(c, n) for c in table.preparation.x]) for n in ("mean", "scale"))
    inputs = np.asarray(table.train.inputs) * scales + means
    targets = table.restore(np.asarray(table.train.targets))[:, 0]
    assert np.allclose(np.diff(inputs, axis=1), 1, atol=1e-2)
    assert np.allclose(targets - inputs[:, -1], 3, atol=1e-2)


@pytest.mark.parametrize("seed", range(5))
def test_query_forecasts_follow_the_support_set(seed):
    table = tables.windows(series(), task="s", time="t", y="v", length=4, horizon=3, shots=5)
    task = table.train.task(0, jax.random.key(seed))
    support = table.restore(used(task.support)[1])[:, 0].round()
    query = table.restore(used(task.query)[1])[:, 0].round()
    assert (np.diff(support) == 1).all()
    assert len(support) == 5
    assert query.min() - 3 >= support.max()  # the last value that a query sees
    assert query.max() % 1000 == 29


def test_windows_do_not_cross_time_gaps():
    with pytest.warns(
        UserWarning, match=r"no window crosses the 1 irregular step \(usually 1\) in column 't'"
    ):
        table = tables.windows(series(gap_in=2), task="s", time="t", y="v", length=4)
    sizes = dict(
        zip(
            [n for p in parts(table) for n in p.names],
            [s for p in parts(table) for s in p.sizes],
            strict=True,
        )
    )
    assert sizes["2"] == (10 - 4) + (19 - 4)
    assert sizes["1"] == 30 - 4


def test_windows_support_dates_and_other_columns():
    frame = series().assign(
        other=lambda f: -f.v, day=lambda f: pd.Timestamp("2024-01-01") + pd.to_timedelta(f.t, "D")
    )
    table = tables.windows(frame, task="s", time="day", y="v", x=["other"], length=3)
    assert table.preparation.features == 6
    new = frame[frame.s == 0].head(6)
    batch = table.prepare(new)
    assert batch.inputs.shape == (3, 6)
    assert np.allclose(table.restore(batch.targets)[:, 0], [3, 4, 5], atol=1e-2)


@pytest.mark.parametrize(
    "make",
    [
        pd.DataFrame,
        lambda frame: pytest.importorskip("pyarrow").Table.from_pandas(frame),
        lambda frame: frame.set_axis(range(3), axis=1),
        lambda frame: {name: list(frame[name].to_numpy()) for name in frame},
    ],
)
def test_windows_accept_dates_in_any_frame_type(make):
    """An Arrow table does not know `in`, pandas numbers columns without names, and lists have no dtype."""
    frame = series().assign(t=lambda f: pd.Timestamp("2024-01-01") + pd.to_timedelta(f.t, "D"))
    frame = make(frame)
    names = ("0", "1", "2") if isinstance(frame, pd.DataFrame) and 0 in frame else ("s", "t", "v")
    table = tables.windows(frame, **dict(zip(("task", "time", "y"), names, strict=True)), length=3)
    assert table.train.sizes[0] == 30 - 3


def test_missing_date_raises():
    frame = series().assign(t=lambda f: pd.Timestamp("2024-01-01") + pd.to_timedelta(f.t, "D"))
    frame.loc[3, "t"] = pd.NaT
    with pytest.raises(
        InnerloopError, match="column 't' must hold the times of all rows; use numbers or dates"
    ):
        tables.windows(frame, task="s", time="t", y="v", length=1)


def test_time_column_of_other_length_raises():
    frame = {"s": [1, 1, 1], "t": [1, 2], "v": [1.0, 2.0, 3.0]}
    with pytest.raises(InnerloopError, match=r"columns must have the same length, got .*'t': 2"):
        tables.windows(frame, task="s", time="t", y="v", length=1)


def test_tables_can_be_pickled():
    table = tables.from_frame(schools(10), task="school", x=["ses"], y="score")
    copy = pickle.loads(pickle.dumps(table))
    frame = {"ses": [0.5]}
    assert np.array_equal(copy.inputs(frame), table.inputs(frame))


def test_windows_of_new_series_include_the_last_time():
    """The forecasts: the last windows of each series, whose targets are still to come."""
    table = tables.windows(series(), task="s", time="t", y="v", length=4, horizon=3)
    new, value = series(2, 9), table.preparation.x[-1]
    assert isinstance(value, Number)
    last = lambda inputs: inputs[:, -1] * value.scale + value.mean
    assert np.allclose(last(table.inputs(new)), [3, 4, 5, 6, 7, 8, *range(1003, 1009)], atol=1e-2)
    assert np.allclose(last(table.prepare(new).inputs), [3, 4, 5, 1003, 1004, 1005], atol=1e-2)
    assert np.array_equal(table.prepare(new).inputs[:3], table.inputs(new)[:3])
    assert table.inputs(new.head(4)).shape == (1, 4)
    with pytest.raises(InnerloopError, match="no series has 4 consecutive rows"):
        table.inputs(new.head(3))


@pytest.mark.parametrize("rows", range(1, 7))
def test_too_short_series_raise(rows):
    table = tables.windows(series(), task="s", time="t", y="v", length=4, horizon=3)
    with pytest.raises(InnerloopError, match="no series has 7 consecutive rows"):
        table.prepare(series(1, rows))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"length": 0}, "`length` must be 1 or more, got 0"),
        ({"horizon": 0}, "`horizon` must be 1 or more, got 0"),
        ({"length": 40}, "no series has 41 consecutive rows"),
        ({"y": "name"}, "column 'name' must hold numbers"),
        ({"time": "twice"}, "column 'twice' must differ between rows of a series"),
        ({"time": "name"}, "column 'name' must hold the times of all rows"),
    ],
)
def test_invalid_window_arguments_raise(change, message):
    frame = series().assign(name="a", twice=1.0)
    with pytest.raises(InnerloopError, match=message):
        tables.windows(frame, **{"task": "s", "time": "t", "y": "v", "length": 4} | change)


def test_traced_preparation_matches_numpy():
    """With the digits that a large mean has beyond float32; categories by their position, restored in the units."""
    kinds = (Number("year", 1987.123456789, 0.05), Category("kind", ("new", "old")))
    preparation = Preparation("shop", kinds, (Number("sales", 100.5, 7.0), Number("cost", -3.0, 0.5)))
    years, codes = np.arange(1980.0, 1990.0), np.arange(10) % 3
    frame = {"year": years, "kind": np.array(["new", "old", "other"])[codes]}
    with pytest.warns(UserWarning, match="not in any training group"):
        wanted = preparation.inputs(frame)
    rows = np.stack([years, codes], 1).astype(np.float32)
    np.testing.assert_allclose(jax.jit(lambda x: traced.encoded(preparation, x))(rows), wanted, rtol=1e-6)
    values = np.random.default_rng(0).normal(size=(5, 2)).astype(np.float32)
    found = traced.restored(preparation, jnp.asarray(values))
    np.testing.assert_allclose(found, preparation.restore(values), rtol=1e-6)
