"""`innerloop analyze A B`: each run as it is analysed alone, side by side."""

import json

from innerloop.analysis.run_all import Request, analyze
from innerloop.training.storage.run_directory import RunFolder

FREEZE = ("--only", "freeze", "--tasks", "3")


def test_each_run_is_as_alone(run, store, command, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    file = RunFolder(run).snapshots()[0]
    code, out, _ = command("analyze", run, file, *FREEZE, "--json")
    assert code == 0
    first, second = json.loads(out)["runs"]
    for found, source in ((first, run), (second, file)):
        alone = json.loads(json.dumps(analyze(Request(str(source), tasks=3), ["freeze"])))
        assert {"label": found["label"]} | alone == found
    assert first["freeze"] != second["freeze"]
    assert first["label"] != second["label"]
    code, out, _ = command("analyze", run, file, *FREEZE, "--out", "both")
    assert code == 0
    assert "Page:     both/index.html" in out
    assert json.loads((tmp_path / "both" / "results.json").read_text()) == {"runs": [first, second]}
    assert first["label"] in (tmp_path / "both" / "index.html").read_text()


def test_what_several_runs_do_not_allow(run, store, complaint, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert "needs a run; give a run's folder" in complaint("analyze")
    assert "`paths` is not shown of several runs" in complaint("analyze", run, run, "--only", "paths")
    assert "--against: compares the layers of one run" in complaint("analyze", run, run, "--against", run)
    assert "different scores, loss and accuracy" in complaint("analyze", run, "sinusoid-maml")
    assert "there is no NIL for regression" in complaint(
        "analyze", "sinusoid-maml", "sinusoid-joint", "--only", "nil"
    )
    assert not list(tmp_path.iterdir())
