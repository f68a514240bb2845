import pytest

from innerloop.cli.report import Report, _destination
from innerloop.report import measurements

pytestmark = pytest.mark.usefixtures("undrawn")


def test_report_is_written_to_run_folder(command, sinusoid_run):
    code, out, _ = command("report", sinusoid_run, "--tasks", 4)
    assert code == 0
    assert f"Report: {sinusoid_run / 'report.html'}" in out
    assert (sinusoid_run / "report.html").read_text().startswith("<!DOCTYPE html>")


def test_report_replaces_own_page_unless_edited(command, complaint, sinusoid_run):
    """Also one that was changed, for those who say so."""
    page = sinusoid_run / "report.html"
    assert command("report", sinusoid_run, "--tasks", 4)[0] == 0
    code, out, _ = command("report", sinusoid_run, "--tasks", 4, "--overwrite")
    assert code == 0
    assert "report.html (in place of an earlier page; keep both with --out)" in out
    page.write_text("mine")
    assert "was changed since" in complaint("report", sinusoid_run, "--tasks", 4)
    assert command("report", sinusoid_run, "--tasks", 4, "--overwrite")[0] == 0
    assert page.read_text().startswith("<!DOCTYPE html>")


def test_overwrite_replaces_named_page_but_no_input(command, complaint, sinusoid_run):
    """It is none of the files that are read."""
    words = ("report", sinusoid_run, "--tasks", "2", "--out", sinusoid_run / "named.html")
    assert command(*words)[0] == 0
    assert "already exists; give another name, or --overwrite" in complaint(*words)
    code, out, _ = command(*words, "--overwrite")
    assert (code, "in place of" in out) == (0, False)
    words = (*words[:-1], sinusoid_run / "snapshots" / "00000000.safetensors", "--overwrite")
    assert "is an input" in complaint(*words)


def test_report_on_weights_file_uses_working_directory(sinusoid_run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    weights = sinusoid_run / "weights.safetensors"
    assert _destination(Report((str(weights),)), [weights])[1] == "report.html"


def test_invalid_report_requests_are_rejected(complaint, sinusoid_run, tmp_path, monkeypatch):
    """Nothing is measured before all runs are found."""
    monkeypatch.setattr(measurements, "measure", None)
    assert "needs a run" in complaint("report")
    assert "must be 2 or more" in complaint("report", sinusoid_run, "--tasks", 1)
    assert "is not a run" in complaint("report", tmp_path)
    assert "is not a run" in complaint("report", sinusoid_run, tmp_path)
    assert "is a folder" in complaint("report", sinusoid_run, "--out", tmp_path)
