"""CSV and Parquet files as columns: numbers, text, what is missing, and files that are none."""

import datetime
import os

import hypothesis.strategies as st
import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings

from innerloop.errors import InnerloopError
from innerloop.tasks.io import table_files


@pytest.fixture
def csv(tmp_path):
    def write(text):
        path = tmp_path / "a.csv"
        path.write_text(text, encoding="utf-8")
        return path

    return write


def test_csv_numbers_text_and_missing_values(csv):
    found = table_files.read(csv('a,b,c\n1,x,NA\n,"y, z",2e3\n\n-3.5, nan ,null\n'))
    assert found["a"].tolist()[::2] == [1.0, -3.5]
    assert np.isnan(found["a"][1])
    assert found["b"].tolist() == ["x", "y, z", None]
    assert found["c"][1] == 2000
    assert np.isnan(found["c"][[0, 2]]).all()


def test_column_selection_and_text_columns(csv):
    found = table_files.read(csv("a,b,c\n01,2,3\n1,2,3\n"), ["a", "b"], text=["a"])
    assert list(found) == ["a", "b"]
    assert found["a"].tolist() == ["01", "1"]
    assert found["b"].tolist() == [2.0, 2.0]
    with pytest.raises(InnerloopError, match="no column with this name, got 'z'; choose among: a, b, c"):
        table_files.read(csv("a,b,c\n1,2,3\n"), ["a", "z"])


def test_duplicate_names_are_found_quickly_in_wide_tables(csv):
    """Not each of them against all others, which would take an hour."""
    names = [f"c{i}" for i in range(200_000)]
    assert len(table_files.read(csv(",".join(names) + "\n"))) == len(names)
    with pytest.raises(InnerloopError, match="columns must have different names, got c7 twice"):
        table_files.read(csv(",".join([*names, "c7", "c3"]) + "\n"))


def test_codes_with_underscores_are_text(csv):
    """Python reads 1_10 as the number 110."""
    found = table_files.read(csv("a,b\n1_10,1\n11_0,2\n"))
    assert found["a"].tolist() == ["1_10", "11_0"]
    assert found["b"].tolist() == [1.0, 2.0]


def test_byte_order_mark_is_stripped(tmp_path):
    (tmp_path / "a.csv").write_bytes("\ufeffa,b\n1,2\n".encode())
    assert list(table_files.read(tmp_path / "a.csv")) == ["a", "b"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "the first row must name all columns"),
        ("a,,c\n", "the first row must name all columns"),
        ("a,a\n", "columns must have different names, got a twice"),
        (
            "a,b\n1\n",
            "every row must have 2 cells, got 1 in line 2 of the file; quote cells that contain a comma",
        ),
        ('a,b\n\n"1\n1",2\n3\n', "every row must have 2 cells, got 1 in line 5 of the file"),
        ('a,b\n"1,2\n', "is not a CSV table"),
    ],
)
def test_malformed_csv_raises(csv, text, message):
    with pytest.raises(InnerloopError, match=rf"a\.csv: {message}"):
        table_files.read(csv(text))


def test_oversized_csv_raises(csv, monkeypatch):
    monkeypatch.setattr(table_files, "CELLS", 5)
    with pytest.raises(InnerloopError, match=r"must have at most 5 values"):
        table_files.read(csv("a,b\n1,2\n3,4\n5,6\n"))
    monkeypatch.setattr(table_files, "BYTES", 5)
    with pytest.raises(InnerloopError, match=r"is larger than the bound of 5 bytes"):
        table_files.read(csv("a,b\n1,2\n"))


def test_fifo_is_rejected(tmp_path):
    os.mkfifo(tmp_path / "a.csv")
    with pytest.raises(InnerloopError, match="must be a regular file, got a FIFO"):
        table_files.read(tmp_path / "a.csv")


def test_parquet_without_pyarrow_suggests_installation(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "pyarrow.parquet", None)
    (tmp_path / "a.parquet").write_bytes(b"")
    with pytest.raises(
        InnerloopError, match=r"needs the package `pyarrow`, .* pip install 'innerloop\[tables\]'"
    ):
        table_files.read(tmp_path / "a.parquet")


@pytest.fixture
def parquet(tmp_path):
    pytest.importorskip("pyarrow")

    def write(columns):
        path = tmp_path / "a.parquet"
        pd.DataFrame(columns).to_parquet(path)
        return path

    return write


def test_parquet_numbers_text_and_missing_values(parquet):
    columns = {
        "a": pd.array([1, None, 3], "Int64"),
        "b": pd.Categorical(["x", None, "y"]),
        "c": [True, False, True],
    }
    found = table_files.read(parquet(columns | {"d": ["x", None, "y"], "e": [1.5, None, 2.5]}))
    assert found["a"].tolist()[::2] == [1.0, 3.0]
    assert np.isnan(found["a"][1])
    assert found["b"].tolist() == found["d"].tolist() == ["x", None, "y"]
    assert found["c"].tolist() == [1.0, 0.0, 1.0]
    assert np.isnan(found["e"][1])


def test_parquet_large_integers_are_exact_as_text(parquet):
    """As float64 they would be one."""
    path = parquet({"a": pd.array([2**53, 2**53 + 1, None], "Int64"), "b": [2**53, 2**53 + 1, 1]})
    found = table_files.read(path, text=["a", "b"])
    assert found["a"].tolist() == ["9007199254740992", "9007199254740993", None]
    assert found["b"].tolist() == ["9007199254740992", "9007199254740993", "1"]


def test_selected_parquet_columns_of_other_types_raise(parquet):
    path = parquet({"a": [1.0], "day": [datetime.datetime(2024, 1, 1)]})
    assert list(table_files.read(path, ["a"])) == ["a"]
    with pytest.raises(InnerloopError, match="no column with this name, got 'z'; choose among: a, day"):
        table_files.read(path, ["a", "z"])
    with pytest.raises(InnerloopError, match="column 'day' must hold numbers or text, got timestamp"):
        table_files.read(path)


def test_oversized_parquet_raises(parquet, monkeypatch):
    path = parquet({"a": np.zeros(1000)})
    monkeypatch.setattr(table_files, "CELLS", 999)
    with pytest.raises(InnerloopError, match="must have at most 999 values, got 1000"):
        table_files.read(path)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    content=st.binary(max_size=200),
    cut=st.integers(0, 400),
    kind=st.sampled_from(["csv", "parquet", "damaged"]),
)
def test_arbitrary_bytes_give_table_or_error(tmp_path, content, cut, kind):
    path = tmp_path / f"any.{'csv' if kind == 'csv' else 'parquet'}"
    if kind != "csv":
        pytest.importorskip("pyarrow")
    if kind == "damaged":
        pd.DataFrame({"a": [1.0, 2.0], "b": ["x", "y"]}).to_parquet(path)
        good = path.read_bytes()
        content = good[:cut] + content[:3] + good[cut + 3 :]
    path.write_bytes(content)
    try:
        found = table_files.read(path)
    except InnerloopError:
        return
    assert len({len(values) for values in found.values()}) == 1
