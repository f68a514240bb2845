"""Guides with measured tables are what their result files say."""

import pytest

from benchmarks import adapters, neural_fields, test_time_training


@pytest.mark.parametrize("measured", [adapters, neural_fields, test_time_training], ids=lambda m: m.__name__)
def test_guide_tables_match_result_files(measured, tmp_path, monkeypatch):
    copy = tmp_path / "guide.md"
    copy.write_text(measured.PAGE.read_text(encoding="utf-8"), encoding="utf-8")
    monkeypatch.setattr(measured, "PAGE", copy)
    measured.write_page()
    assert copy.read_text(encoding="utf-8") == measured.PAGE.read_text(encoding="utf-8")
