"""The cost model against its closed forms, and the page from records alone."""

import json
from pathlib import Path

import pytest
from benchmarks.accuracy import tables
from benchmarks.scaling import cost_model, measure
from benchmarks.scaling import page as scaling_page
from benchmarks.scaling.cost_model import Link, efficiency, mean_seconds, sent_by_each, step_seconds

from innerloop.errors import InnerloopError

LINK = Link("test", bandwidth=100.0, latency=0.5)


def test_one_device_sends_nothing():
    assert sent_by_each(1000, 1) == mean_seconds(1000, 1, LINK) == 0
    assert step_seconds(10, 2.0, 1000, 1, LINK) == 20
    assert efficiency(10, 2.0, 1000, 1, LINK) == 1


def test_ring_all_reduce_by_hand():
    """Four devices, 1000 bytes: six messages of 250 bytes."""
    assert sent_by_each(1000, 4) == 6 * 250
    assert mean_seconds(1000, 4, LINK) == 6 * (250 / 100 + 0.5)
    assert step_seconds(10, 2.0, 1000, 4, LINK) == 3 * 2.0 + 18
    assert efficiency(10, 2.0, 1000, 4, LINK) == pytest.approx(20 / 4 / 24)


def test_many_devices_send_at_most_twice_the_gradient():
    sent = [sent_by_each(1000, n) for n in cost_model.DEVICES]
    assert sent == sorted(sent)
    assert sent[-1] < 2000
    assert cost_model.DEVICES[0] == 1
    assert cost_model.DEVICES[-1] == 1024


def test_page_is_generated_from_records(tmp_path: Path):
    page = tmp_path / "scale.md"
    text = scaling_page.PAGE.read_text()
    page.write_text(text)
    scaling_page.write(measure.load(), page)
    assert page.read_text() == text
    for name in (*scaling_page.SECTIONS, "model"):
        begin, end = (mark.format(name) for mark in (scaling_page.BEGIN, scaling_page.END))
        assert "| --- |" in text[text.index(begin) : text.index(end)], name
    with pytest.raises(InnerloopError, match="needs <!-- speed:begin -->"):
        scaling_page.filled("no markers", "speed", "")


def test_records_support_documented_claims():
    found = measure.load()
    for row in found["equality"]["measured"]:
        assert row["from_one_process"] == 0
        assert row["from_one_device"] < 1e-6
    assert all(row["apart"] < 1e-6 for row in found["restarts"]["measured"])
    assert all(row["told"] and set(row["codes"]) == {75} for row in found["losses"]["measured"])


def test_load_skips_files_without_a_subject(tmp_path: Path):
    (tmp_path / "a.json").write_text(json.dumps({"subject": "x"}))
    (tmp_path / "scaling.json").write_text(json.dumps({"speed": {}}))
    assert list(tables.load(tmp_path)) == ["x"]


@pytest.mark.parametrize(("value", "words"), [(2.5, "2.5 s"), (0.0021, "2.1 ms"), (3e-6, "3 µs"), (0, "0")])
def test_seconds_are_formatted_with_units(value: float, words: str):
    assert scaling_page.seconds(value) == words
