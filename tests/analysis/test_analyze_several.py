"""`innerloop analyze A B`: each run as it is analysed alone, side by side."""

import json
import shutil
from pathlib import Path

import pytest

from innerloop.analysis.run_all import Request, analyze
from innerloop.cli.analyze_folder import default_out
from innerloop.training.storage.run_directory import RunFolder

pytestmark = pytest.mark.usefixtures("undrawn")

FREEZE = ("--only", "freeze", "--tasks", "3")


def test_runs_are_analyzed_as_if_alone(run, store, command, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    file = RunFolder(run).snapshots()[0]
    code, out, _ = command("analyze", run, file, *FREEZE, "--json")
    assert code == 0
    first, second = json.loads(out)["runs"]
    for found, source in ((first, run), (second, file)):
        alone = json.loads(json.dumps(analyze(Request(str(source), num_tasks=3), ["freeze"])))
        assert {"label": found["label"]} | alone == found
    assert first["freeze"] != second["freeze"]
    assert first["label"] != second["label"]
    code, out, _ = command("analyze", run, file, *FREEZE, "--out", "both")
    assert code == 0
    assert "Page:     both/index.html" in out
    assert json.loads((tmp_path / "both" / "results.json").read_text()) == {"runs": [first, second]}
    assert first["label"] in (tmp_path / "both" / "index.html").read_text()


def test_invalid_requests_for_several_runs_are_rejected(run, store, complaint, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert "needs a run; give a run's folder" in complaint("analyze")
    assert "`paths` cannot be shown for several runs" in complaint("analyze", run, run, "--only", "paths")
    assert "--against: compares the layers of one run" in complaint("analyze", run, run, "--against", run)
    assert "different scores, loss and accuracy" in complaint("analyze", run, "sinusoid-maml")
    assert "there is no NIL for regression" in complaint(
        "analyze", "sinusoid-maml", "sinusoid-joint", "--only", "nil"
    )
    assert not list(tmp_path.iterdir())


def test_analysis_of_other_runs_is_not_replaced(run, store, command, complaint, tmp_path, monkeypatch):
    """Neither by pairs of other names, nor, unless asked to, by pairs of the same; and nothing stale is left."""
    monkeypatch.chdir(tmp_path)
    pairs = [[f"{folder}/lr0.{i}" for i in (1, 2)] for folder in "ab"]
    for copy in sum(pairs, []):
        shutil.copytree(run, copy)
    out = tmp_path / "analysis-lr0.1-lr0.2"
    assert command("analyze", *pairs[0], "--only", "freeze", "weights", "--tasks", "3")[0] == 0
    (out / "figures" / "mine.png").write_text("mine")
    before = (out / "results.json").read_bytes()
    told = complaint("analyze", *pairs[1], *FREEZE)
    assert (
        "analysis-lr0.1-lr0.2: holds the analysis of other runs, got a/lr0.1, a/lr0.2; give another" in told
    )
    assert (out / "results.json").read_bytes() == before
    assert command("analyze", *pairs[1], *FREEZE, "--overwrite")[0] == 0
    here = {str(path.relative_to(out)) for path in out.rglob("*") if path.is_file()}
    figures = {f"figures/{name}" for name in ("freeze.png", "freeze.svg", "mine.png")}
    assert here == {".innerloop.json", "index.html", "results.json", "freeze.csv", *figures}


def test_default_out_joins_run_names(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    out = lambda *runs: default_out(runs)
    assert out("runs/lr0.1", "runs/lr0.2") == Path("analysis-lr0.1-lr0.2")
    assert out(".", "x/y.safetensors") == Path(f"analysis-{tmp_path.name}-y")
    assert out("sinusoid-maml") == Path("analysis-sinusoid-maml")
