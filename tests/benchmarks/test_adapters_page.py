"""The guide to adapters is what its result file says."""

import json

from benchmarks import adapters


def test_the_guide_is_what_the_result_file_says(tmp_path, monkeypatch):
    page = adapters.PAGE
    copy = tmp_path / "guide.md"
    copy.write_text(page.read_text(encoding="utf-8"), encoding="utf-8")
    monkeypatch.setattr(adapters, "PAGE", copy)
    adapters.write_page(json.loads(adapters.RESULTS.read_text(encoding="utf-8")))
    assert copy.read_text(encoding="utf-8") == page.read_text(encoding="utf-8")
