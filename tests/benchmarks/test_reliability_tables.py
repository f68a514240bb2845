"""docs/reference/reliability.md is what its result file says."""

import json
from importlib import metadata
from pathlib import Path

import pytest
from tools import reliability_tables, sbom


def test_document_matches_results() -> None:
    text = reliability_tables.DOCUMENT.read_text()
    assert reliability_tables.document(text) == text


def test_fault_and_fuzz_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reliability_tables, "RESULTS", tmp_path / "r.json")
    assert reliability_tables.load() == {}
    fault = {"fault": "power cut", "tried": 2, "outcome": "fine", "lost": "nothing", "test": "x::y"}
    reliability_tables.put("faults", "power cut", fault)
    counts = {"inputs": 12345, "read": 1, "refused": 12344, "findings": {"x": [1]}, "megabytes": 3}
    reliability_tables.put("fuzz", "tables", counts)
    known = json.loads((tmp_path / "r.json").read_text())
    assert "| power cut | 2 | fine | nothing | `pytest x::y` |" in reliability_tables.faults(known)
    assert "| tables | 12 345 | 1 | 12 344 | 1 | 3 MB |" in reliability_tables.fuzzed(known)
    marked = "a <!-- m -->\nold\n<!-- end of m --> b"
    assert reliability_tables.between(marked, "m", "new") == marked.replace("old", "new")


def test_sbom_licences_and_pins() -> None:
    told = "License-Expression" in metadata.metadata("numpy")  # numpy 2.0 has classifiers alone
    assert sbom.licence("numpy").startswith("BSD-3-Clause" if told else "BSD")
    assert sbom.licence("no-such-package") == sbom.UNKNOWN
    pins = sbom.pins()
    assert len({pin["name"] for pin in pins}) == len(pins) > 20
    assert all(pin["hashes"] for pin in pins)
