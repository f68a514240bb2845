"""The command: everything on one run, one experiment alone, results kept by content, snapshots, bad input."""

import csv
import json
import re
from dataclasses import asdict
from typing import Any

import pytest
from plot_records import record  # pyright: ignore[reportMissingImports]

from innerloop.analysis import analyzed_run
from innerloop.analysis.experiments import EXPERIMENTS
from innerloop.analysis.run_all import ExperimentRunner, Request, analyze
from innerloop.analysis.verdict import judge
from innerloop.cli import main
from innerloop.cli.analyze import _show
from innerloop.errors import InnerloopError
from innerloop.io.text import as_json
from innerloop.report.analysis_page import subject
from innerloop.report.html_blocks import nonbreaking
from innerloop.report.plots.analysis import frozen_name
from innerloop.training.experiments.schedule import reached
from innerloop.training.storage import weights
from innerloop.training.storage.run_directory import RunFolder


@pytest.fixture
def complaint(capsys):
    def ask(*words):
        assert main(["analyze", *map(str, words)]) == 2
        told = capsys.readouterr().err
        assert told.count("\n") == 1
        return told

    return ask


@pytest.mark.slow
@pytest.mark.usefixtures("undrawn")
def test_analyze_runs_all_experiments_and_reuses_results(run, store, capsys):
    """Page, tables and figures of every experiment; the second call reads them all."""
    words = ["analyze", str(run), "--tasks", "4", "--against", str(run), "--frozen", "head"]
    assert main(words) == 0
    told = capsys.readouterr()
    assert "Freezing: what if layers cannot adapt?" in told.out
    assert "freezing" in told.err
    assert len(list(store.glob("*.json"))) == len(EXPERIMENTS)
    out = run / "analysis"
    results = json.loads((out / "results.json").read_text())
    for name in EXPERIMENTS:
        rows = list(csv.DictReader((out / f"{name}.csv").open()))
        assert rows, name
        assert all(None not in row.values() for row in rows), name
    figures = {path.name for path in (out / "figures").iterdir()}
    drawn = {*EXPERIMENTS, "landscape-line", "landscape-plane"} - {"landscape"}
    assert figures == {f"{name}.{kind}" for name in drawn for kind in ("png", "svg")}
    page = (out / "index.html").read_text()
    assert page.count("<h2") == len(EXPERIMENTS) + 2
    assert not re.search(r"<(script|link|iframe)|src=\"(?!data:)", page)
    assert all(nonbreaking(sentence) in page for sentence in results["verdict"]["sentences"])
    assert [x["frozen"] for x in results["freeze"]] == [[], ["hidden1"], ["hidden1", "head"], ["head"]]
    assert [x["meta_step"] for x in results["early"]] == [0, 2, 4]
    assert all(x["cka"]["mean"] == pytest.approx(1) for x in results["against"])
    assert len(results["paths"]["body"]["outer"]) == 4  # three snapshots, and theta itself

    def forbidden(*anything):
        raise AssertionError("measured again")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(analyzed_run, "load_trained", forbidden)
        assert main(words) == 0
    assert json.loads((out / "results.json").read_text()) == results
    assert "compiling" not in capsys.readouterr().err


def test_only_option_prints_one_experiment_as_json(run, store, capsys, tmp_path, monkeypatch):
    """One object, and no file unless asked for."""
    monkeypatch.chdir(tmp_path)
    assert main(["analyze", str(run), "--only", "freeze", "--tasks", "3", "--json"]) == 0
    results = json.loads(capsys.readouterr().out)
    assert [x["frozen"] for x in results["freeze"]] == [[], ["hidden1"], ["hidden1", "head"]]
    assert {"accuracy", "ci95"} <= set(results["freeze"][0])
    assert results["tasks"] == 3
    assert not {"nil", "similarity"} & set(results)
    assert [path.name for path in tmp_path.iterdir()] == ["store"]


FROZEN = {"accuracy": 0.5, "ci95": 0.1, "change": -0.4, "change_ci95": 0.1}
SETS = ([], ["hidden1"], ["hidden1", "head"])
MOVED = {"relative": 0.1, "relative_ci95": 0.01, "angle": 5.0, "angle_ci95": 0.5}


@pytest.mark.usefixtures("undrawn", "store")
def test_partial_analysis_merges_results_of_same_settings(run, complaint, capsys, tmp_path, monkeypatch):
    """Also where a number is not finite. With other settings it replaces the whole, or nothing."""
    found = {"freeze": [{"frozen": names} | FROZEN for names in SETS]}
    found["freeze"][1]["ci95"] = float("nan")
    found["weights"] = [{"layer": name, "head": name == "head"} | MOVED for name in ("hidden1", "head")]
    for name, result in found.items():
        fixed = EXPERIMENTS[name]._replace(run=lambda runner, options, result=result: result)
        monkeypatch.setitem(EXPERIMENTS, name, fixed)
    out = tmp_path / "out"
    ask = lambda *words: ("analyze", str(run), *words, "--out", str(out))
    assert main([*ask("--only", "freeze", "--tasks", "3")]) == 0
    frozen = (out / "freeze.csv").read_text()
    capsys.readouterr()
    assert main([*ask("--only", "weights", "--tasks", "3")]) == 0
    told = capsys.readouterr().out
    assert re.search(r"head +10.0 ± 1.0 %", told)
    assert "index.html (with freeze of an earlier analysis)" in told
    assert (out / "freeze.csv").read_text() == frozen
    results = json.loads((out / "results.json").read_text())
    assert {name: results[name] for name in found} == json.loads(as_json(found))
    assert results["verdict"]["kind"] == "undecided"
    page = (out / "index.html").read_text()
    assert all(f'<h2 id="{name}">' in page for name in found)
    assert "held-out tasks: 3 for Freezing, Weights;" in page
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    for change in (("--tasks", "4"), ("--tasks", "3", "--frozen", "head")):
        told = complaint(*ask("--only", "weights", *change)[1:])
        assert (
            "other weights, settings or code, whose results would be lost, got freeze; repeat its opti"
            in told
        )
    assert {path: path.read_bytes() for path in before} == before
    assert main([*ask("--only", "freeze", "weights", "--tasks", "4")]) == 0
    assert main([*ask("--only", "weights", "--tasks", "5", "--overwrite")]) == 0
    assert not (out / "freeze.csv").exists()
    assert "No verdict. It needs the experiment freeze." in re.sub(
        "<.*?>", "", (out / "index.html").read_text()
    )


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("freeze", ("conv1–conv2", "70.00 ± 2.00 %", "Verdict: undecided.")),
        ("similarity", ("conv2", "0.800 ± 0.080", "No verdict.")),
        ("nil", ("NIL, untrained body", "30.00 ± 1.00 %")),
        ("weights", ("10.0 ± 1.0 %", "5.00 ± 0.50°", "conv1 moves most")),
        ("steps", ("inner step", "90.00 ± 9.00 %", "0.500 ± 0.050")),
        ("landscape", ("mean query loss is 1.1 at θ and 0.8 after the step; it is lowest, 0.8, at 1 times",)),
        ("paths", ("True path lengths", "outer loop 1.00")),
        ("early", ("meta-step", "80.00 ± 2.00 %", "0.80 (conv2)")),
        ("against", ("Against y, mean over the body: CCA 0.85, CKA 0.85",)),
    ],
)
def test_show_prints_results_of_each_experiment(name, words, capsys):
    whole: dict[str, Any] = record() | {"against_source": "y", "moves": "all"}
    whole["freeze"][2]["frozen"] = ["conv1", "conv2"]
    results = {entry: x for entry, x in whole.items() if entry == name or entry not in EXPERIMENTS}
    if (verdict := judge(results)) is not None:
        results["verdict"] = asdict(verdict)
    _show(results, [name])
    told = capsys.readouterr().out
    assert all(word.replace("conv1–conv2", "body") in told for word in words), told
    assert ("No verdict." in told) == (name != "freeze")
    assert f"({EXPERIMENTS[name].tasks_of(20)} held-out tasks)" in told


def test_cache_key_depends_on_weights_and_settings(run):
    """Weights, settings and the second run; not the tasks of other experiments, and not the name of the source."""
    depends = lambda name, **changes: ExperimentRunner(Request(**{"source": str(run), **changes}))._depends(
        name
    )
    copy = str(run / "weights.safetensors")
    first = str(RunFolder(run).snapshots()[0])
    assert depends("freeze") == depends("freeze", source=copy) != depends("freeze", source=first)
    for changes in ({"num_tasks": 5}, {"seed": 1}, {"shots": 2}, {"steps": 1}, {"frozen": (("head",),)}):
        assert depends("freeze", **changes) != depends("freeze")
    assert depends("similarity", num_tasks=500) == depends("similarity", num_tasks=400)
    assert depends("against", against=first) != depends("against", against=copy)


def test_broken_cached_result_is_recomputed(run, store):
    request = Request(str(run), num_tasks=3)
    results = analyze(request, ["freeze"])
    (kept,) = store.glob("*.json")
    kept.write_text(kept.read_text()[:20])
    assert analyze(request, ["freeze"]) == results


def test_snapshots_are_saved_along_training(run):
    """Before the first meta-step, and after each part of the run; the last is what was learnt."""
    found = RunFolder(run).snapshots()
    assert list(found) == [0, 2, 4]
    arrays, config, facts = weights.load(found[4])
    final = weights.load(run / "weights.safetensors")[0]
    assert all((arrays[name] == final[name]).all() for name in final)
    assert facts == {"meta_steps": 4}
    assert config.outer.snapshots == 2
    start = weights.load(found[0])[0]
    assert any((start[name] != final[name]).any() for name in final)


def test_reached_spaces_snapshots_evenly():
    """Ten parts of 1000 in blocks of 150: at the first block's end after each tenth."""
    at = [s for s in (150, 300, 450, 600, 750, 900, 1000) if reached(10, 1000, s, 100 if s == 1000 else 150)]
    assert at == [150, 300, 450, 600, 750, 900, 1000]
    assert [s for s in range(1, 101) if reached(4, 100, s, 1)] == [25, 50, 75, 100]
    assert not any(reached(0, 100, s, 1) for s in range(1, 101))


def test_frozen_name_describes_layer_sets():
    layers = ["a", "b", "c", "head"]
    sets = [[], ["a"], ["a", "b"], ["a", "b", "c"], layers, ["a", "c"], ["head"]]
    assert [frozen_name(x, layers) for x in sets] == ["none", "a", "a–b", "body", "all", "a + c", "head"]
    assert [frozen_name(x, ["head"]) for x in ([], ["head"])] == ["none", "all"]


def test_rejected_analysis_leaves_no_folder(store, complaint, tmp_path, monkeypatch):
    """Nor is a policy's owner told to name layers in Python."""
    monkeypatch.chdir(tmp_path)
    assert "there is no such preset, folder or file, got 'nothing'" in complaint("nothing")
    assert "is an RL policy; it adapts from trajectories, not from labelled examples" in complaint(
        "navigation-maml-trpo"
    )
    assert "is an RL policy" in complaint("sinusoid-maml", "--against", "navigation-maml-trpo")
    assert "there is no NIL for regression" in complaint("sinusoid-maml", "--only", "nil")
    assert not list(tmp_path.iterdir())


def test_bad_input(run, store, complaint, tmp_path):
    assert "--tasks: must be 2 or more, got 1" in complaint(run, "--tasks", "1")
    assert "needs a second run; give --against RUN" in complaint(run, "--only", "against")
    assert "`layer` is unknown, got 'conv9'" in complaint(run, "--only", "freeze", "--frozen", "conv9")
    file = run / "weights.safetensors"
    assert "has no snapshots; train with --outer.snapshots 10" in complaint(
        file, "--only", "early", "--out", tmp_path
    )
    (tmp_path / "blocked").write_text("")
    assert "cannot be written (" in complaint(run, "--out", tmp_path / "blocked")
    with pytest.raises(InnerloopError, match="`experiment` is unknown, got 'frieze'"):
        analyze(Request(str(run)), ["frieze"])


def test_regression_has_no_nil(store):
    """Shipped sinusoid weights: losses, layers of the regressor, and all experiments but NIL."""
    lab = ExperimentRunner(Request("sinusoid-maml"))
    assert lab.layers == ["hidden1", "hidden2", "head"]
    assert "nil" not in lab.default()
    results = analyze(Request("sinusoid-maml", num_tasks=20), ["freeze"])
    assert results["freeze"][0]["loss"] < results["freeze"][-1]["loss"]
    assert results["metric"] == "loss"
    assert results["ways"] is results["normalization"] is None
    assert "normalisation" not in subject(results)
