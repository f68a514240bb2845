"""A user's own table through the command: train, evaluate, adapt on new groups, report, and what is wrong with it."""

import json
import re

import jax
import numpy as np
import pandas as pd
import pytest

from innerloop.cli import main
from innerloop.tasks.tables.traced import encoded

SETTINGS = ("--outer.meta-steps", "40", "--outer.log-every", "20", "--outer.validate-every", "40")
SETTINGS += (
    "--outer.meta-batch",
    "4",
    "--model.hidden",
    "8",
    "--inner.steps",
    "2",
    "--evaluation.steps",
    "2",
)


def frame(groups=20, seed=0):
    """Lines of one slope and other offsets for every shop, with unequal numbers of rows."""
    rng = np.random.default_rng(seed)
    counts = rng.integers(7, 20, groups)
    rows = int(counts.sum())
    offset = np.repeat(rng.normal(0, 20, groups), counts)
    size, kind = rng.normal(50, 10, rows), rng.choice(["new", "old"], rows)
    sales = 100 + offset + 2 * size + 5 * (kind == "new")
    return pd.DataFrame(
        {
            "shop": np.repeat(np.arange(groups), counts),
            "size": size,
            "kind": kind,
            "note": "x",
            "sales": sales,
        }
    )


def words(path, **more):
    options = {"file": path, "task": "shop", "x": "size,kind", "y": "sales"} | more
    return [w for name, value in options.items() for w in (f"--data.{name}", str(value))]


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    path = tmp_path_factory.mktemp("table") / "shops.csv"
    frame().to_csv(path, index=False)
    return path


@pytest.fixture(scope="module")
def run(table, tmp_path_factory, quickly):
    folder = tmp_path_factory.mktemp("runs") / "shops"
    with quickly():
        assert main(["train", "table-maml", *words(table), *SETTINGS, "--folder", str(folder)]) == 0
    return folder


@pytest.fixture
def new_group(tmp_path):
    """A shop with six known rows and three to predict."""
    found = frame(1, seed=5).head(9).drop(columns=["shop", "note"])
    found.loc[found.index[[1, 4, 8]], "sales"] = np.nan
    found.to_csv(tmp_path / "shop.csv", index=False)
    return tmp_path / "shop.csv"


def test_evaluate_measures_each_group_once(command, run):
    """The record tells the tasks there were, and only what applies to tables."""
    code, out, _ = command("evaluate", run, "--tasks", 100, "--json")
    record = json.loads(out)
    assert code == 0
    assert (record["tasks"], record["groups"]) == (4, 4)  # a fifth of 20
    assert (record["shots"], record["queries"]) == (5, 10)
    assert not {"ways", "normalization", "queries_per_class"} & record.keys()
    assert record["curve"]["loss"]["mean"][-1] > 0
    code, out, _ = command("evaluate", run, "--split", "train", "--shots", 2)
    assert code == 0
    assert "maml, at most 2 shots, mean squared error" in out
    assert (
        "over all 13 train groups of the table; at most 17 queries; unit: the variance of y over the training rows"
        in out
    )
    told = command("evaluate", run, "--split", "train", "--tasks", 2)[1]
    assert "over 2 of 13 train groups of the table" in told


def test_compare_reports_groups_and_queries(command, run):
    (row,) = json.loads(command("compare", run, "--format", "json")[1])
    assert (row["tasks"], row["groups"], row["queries"]) == (4, 4, 10)


def test_adapt_predicts_in_table_units(command, run, new_group):
    code, out, _ = command("adapt", run, new_group, "--json")
    result = json.loads(out)
    assert code == 0
    assert result["examples"] == 6
    assert [p["row"] for p in result["predictions"]] == [2, 5, 9]
    assert {p["kind"] for p in result["predictions"]} <= {"new", "old"}
    assert all(50 < p["sales"] < 350 for p in result["predictions"])


def test_parquet_gives_the_same_predictions(command, run, new_group, tmp_path):
    pytest.importorskip("pyarrow")
    pd.read_csv(new_group).to_parquet(tmp_path / "shop.parquet")
    csv, parquet = (
        command("adapt", run, path, "--json")[1] for path in (new_group, tmp_path / "shop.parquet")
    )
    assert json.loads(csv)["predictions"] == json.loads(parquet)["predictions"]


def test_adapt_writes_predictions_to_csv(command, run, new_group, tmp_path):
    code, out, _ = command("adapt", run, new_group, "--csv", tmp_path / "out.csv")
    assert code == 0
    assert "2 inner steps on 6 examples" in out
    written = pd.read_csv(tmp_path / "out.csv")
    assert list(written.columns) == ["row", "size", "kind", "sales"]
    assert len(written) == 3


def test_the_training_table_is_not_needed_to_adapt(command, run, table, new_group, tmp_path):
    before = command("adapt", run, new_group, "--json")[1]
    moved = table.rename(tmp_path / "elsewhere.csv")
    try:
        assert command("adapt", run, new_group, "--json")[1] == before
        weights = run / "weights.safetensors"
        again = json.loads(command("adapt", weights, new_group, "--data-folder", moved, "--json")[1])
        assert again["predictions"] == json.loads(before)["predictions"]
    finally:
        moved.rename(table)


def test_exported_network_uses_table_units(command, run, new_group, tmp_path):
    """Numbers as they are; a category as its position, which the command tells."""
    adapted = json.loads(command("adapt", run, new_group, "--json")[1])["predictions"]
    words = ("export", run, "--support", new_group, "--out", tmp_path / "x.stablehlo", "--json")
    code, out, _ = command(*words)
    record = json.loads(out)
    assert (code, record["input"]["columns"]) == (0, ["size", "kind (new = 0, old = 1)"])
    assert (record["output"]["name"], record["output"]["columns"]) == ("values", ["sales"])
    rows = np.array([[p["size"], ["new", "old"].index(p["kind"])] for p in adapted], np.float32)
    file = jax.export.deserialize(bytearray((tmp_path / "x.stablehlo").read_bytes()))
    np.testing.assert_allclose(file.call(rows)[:, 0], [p["sales"] for p in adapted], rtol=1e-6)


def test_export_fails_if_network_disagrees_with_learner(command, run, new_group, tmp_path, monkeypatch):
    """The file is tried on the user's own rows, in the units of the table."""
    wrong = lambda preparation, rows: encoded(preparation, rows) + 0.5
    monkeypatch.setattr("innerloop.cli.export_network.encoded", wrong)
    code, _, told = command("export", run, "--support", new_group, "--out", tmp_path / "x.stablehlo")
    assert code == 2
    assert "would not predict as the learner does" in " ".join(told.split())


@pytest.mark.usefixtures("undrawn")
def test_the_report_shows_groups(command, run):
    code, out, _ = command("report", run, "--tasks", 4)
    assert code == 0
    assert "drawn: Table shops.csv, sales from at most 5 rows" in out
    page = (run / "report.html").read_text()
    assert "groups of the table that were not used in training" in page
    assert re.search(
        r"on at most \d+ rows? of a new group, MAML predicts the other rows with a squared error", page
    )
    assert (run / "figures" / "group-1.svg").exists()


def test_a_resumed_run_refuses_another_table(refused, table, tmp_path):
    path, folder = tmp_path / "shops.csv", tmp_path / "run"
    path.write_bytes(table.read_bytes())
    assert main(["train", "table-maml", *words(path), *SETTINGS, "--folder", str(folder)]) == 0
    frame(seed=1).to_csv(path, index=False)
    assert "of the data changed since the run" in refused("train", "--resume", folder)


def test_other_table_is_scaled_like_training_table(command, run, table, tmp_path):
    """Other sales are wrong for the run: they are not scaled to fit it, and a warning tells."""
    pd.read_csv(table).assign(sales=lambda rows: rows.sales * 2).to_csv(tmp_path / "other.csv", index=False)
    loss = lambda out: json.loads(out)["curve"]["loss"]["mean"][-1]
    own = loss(command("evaluate", run, "--json")[1])
    warning = r"the data differ from those of training \(the training, validation and test sets\)"
    with pytest.warns(UserWarning, match=warning):
        other = command("evaluate", run, "--data-folder", tmp_path / "other.csv", "--json")[1]
    assert loss(other) > 3 * own


def test_mode_is_rejected_without_batch_normalisation(complaint, run, new_group):
    told = complaint("adapt", run, new_group, "--normalization", "inductive")
    assert "--normalization: the network has no batch normalisation, got inductive; leave it out." in told


def test_analyze_rejects_table_runs(complaint, run):
    assert "those of a table's groups are padded" in complaint("analyze", run)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"file": "none.csv"}, "--data.file: must name an existing file, got 'none.csv'."),
        ({"file": "."}, "--data.file: must name an existing file, got '.'."),
        (
            {"file": "notes.txt"},
            "notes.txt: is not a table, got '.txt'; give a file whose name ends in .csv or .parquet.",
        ),
        (
            {"file": ""},
            "data.file: a table needs a file, a group column and a column to predict; give --data.file.",
        ),
        ({"task": ""}, "data.task: a table needs a file"),
        (
            {"task": "shp"},
            "--data.task: there is no column with this name, got 'shp'; choose among: shop, size",
        ),
        (
            {"y": "kind", "x": "size"},
            "data.y: column 'kind' must hold numbers, got text; choose a numeric column",
        ),
        ({"y": "profit"}, "--data.y: there is no column with this name, got 'profit'; choose among: "),
        (
            {"x": "size,nope"},
            "--data.x: there is no column with this name, got 'nope'; choose among: shop, size, kind, note, sales.",
        ),
        (
            {"task": "note", "x": "size"},
            "shops.csv: a split needs at least 6 groups, got 1; choose another column as --data.task.",
        ),
        ({"categories": "note"}, "shops.csv: --data.categories names a column that is not used, got 'note'."),
        ({"missing": "guess"}, "guess"),
    ],
)
def test_invalid_table_settings_are_rejected(command, table, tmp_path, monkeypatch, change, told):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "notes.txt").touch()
    code, _, err = command("train", "table-maml", *words(table, **change), *SETTINGS)
    assert code == 2
    assert told in err
    assert "Traceback" not in err
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("size,kind\n1,new\n", "there is no column with this name, got 'sales'"),
        ("size,kind,sales\n1,new,2\n", "needs rows with sales to learn from, and rows without to predict"),
        ("size,kind,sales\n,new,2\n1,new,\n", "column 'size' has no value in row 1"),
        ("size,kind,sales\n4,new,\n5,old,210\n\n,new,220\n", "column 'size' has no value in row 3"),
        ("size,kind,sales\n5,old,210\n4,new,\n5,,\n", "column 'kind' has no value in row 3"),
        (
            "size,kind,sales\nlarge,new,2\n1,new,\n",
            "column 'size' must hold numbers, as in training, got 'large'",
        ),
        ("size,kind,sales\n1,new\n", "every row must have 3 cells, got 2 in line 2"),
        ("size,size,sales\n", "columns must have different names, got size twice"),
        ("", "the first row must name all columns"),
        ('size,kind,sales\n"1,new,2\n', "is not a CSV table"),
    ],
)
def test_adapt_rejects_invalid_group_tables(complaint, run, tmp_path, content, told):
    path = tmp_path / "new.csv"
    path.write_text(content)
    err = complaint("adapt", run, path)
    assert told in err
    assert "new.csv" in err


def test_adapt_rejects_files_that_are_not_tables(complaint, run, tmp_path):
    assert "a table needs a file of rows" in complaint("adapt", run, tmp_path)
    (tmp_path / "a.parquet").write_bytes(b"PAR1 nothing")
    pytest.importorskip("pyarrow")
    assert "a.parquet: is not a Parquet table" in complaint("adapt", run, tmp_path / "a.parquet")
    (tmp_path / "b.csv").write_bytes(b"\xff\xfe\x00")
    assert "b.csv: is not a UTF-8 text file" in complaint("adapt", run, tmp_path / "b.csv")


def test_batch_normalisation_is_rejected_for_tables(refused, table):
    told = refused("train", "table-maml", *words(table), "--model.normalize")
    assert "batch normalisation would include the padding" in told
