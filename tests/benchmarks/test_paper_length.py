"""Trainings as long as the papers': what is trained, what goes on, what is skipped, and what is said before."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from benchmarks.accuracy import measure, paper_length
from benchmarks.accuracy.__main__ import main
from benchmarks.accuracy.published import published_accuracy
from benchmarks.accuracy.tables import label

from innerloop.config.presets.registry import preset
from innerloop.config.schema import ModelConfig

NAME = "omniglot-5way-1shot-maml-paper-length"


@pytest.fixture
def calls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, ...]]:
    """What was trained and measured, in order, by stand-ins that leave the same files."""
    seen: list[tuple[Any, ...]] = []

    def train(config: Any, folder: Path, *, resume: bool, **_: Any) -> None:
        seen.append(("train", folder.name, resume, config and config.outer.meta_steps))
        folder.mkdir(parents=True, exist_ok=True)
        for name in ("config.json", "weights.safetensors"):
            (folder / name).write_text("{}")

    def take(source: str, measurements: Any, count: int, folder: Path) -> None:
        seen.append(("measure", Path(source).name, measurements.args[1], count))
        found = {"training": {"meta_steps": preset(Path(source).name).outer.meta_steps}}
        (folder / f"{Path(source).name}.json").write_text(json.dumps(found))

    monkeypatch.setattr(paper_length, "train", train)
    monkeypatch.setattr(measure, "take", take)
    monkeypatch.setattr(measure, "FOLDER", tmp_path)
    monkeypatch.setattr("benchmarks.accuracy.tables.write_tables", lambda folder: seen.append(("tables",)))
    monkeypatch.setattr(paper_length.Job, "estimate", lambda job: 0.1 * job.steps_left)
    return seen


def run(tmp_path: Path, *names: str) -> int:
    return main(["--paper-length", *names, "--runs", str(tmp_path / "runs"), "--tasks", "50"])


def test_each_preset_is_trained_and_measured_once(
    tmp_path: Path, calls: list, capsys: pytest.CaptureFixture[str]
):
    other = "cifar-fs-5way-1shot-anil-paper-length"
    assert run(tmp_path, NAME, other) == 0
    modes = ("transductive", "inductive")
    each = lambda name: [("train", name, False, 60_000), ("measure", name, modes, 50)]
    assert calls == [*each(NAME), *each(other), ("tables",)]
    said = capsys.readouterr().out
    assert f"{NAME}: 60000 meta-steps, about 1.7 h\n" in said
    assert "All training runs: about 3.3 h" in said
    calls.clear()
    assert run(tmp_path, NAME, other) == 0
    assert calls == [("tables",)]
    assert f"{NAME}: already done" in capsys.readouterr().out


def test_stopped_training_is_resumed(tmp_path: Path, calls: list, capsys: pytest.CaptureFixture[str]):
    folder = tmp_path / "runs" / NAME
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    (folder / "metrics.jsonl").write_text('{"step": 100}\n{"step": 45000}\n')
    assert run(tmp_path, NAME) == 0
    assert calls[0] == ("train", NAME, True, None)
    assert f"{NAME}: 15000 meta-steps, about 25.0 min\n" in capsys.readouterr().out


def test_result_of_another_length_is_remeasured(tmp_path: Path, calls: list):
    folder = tmp_path / "runs" / NAME
    folder.mkdir(parents=True)
    (folder / "weights.safetensors").write_text("")
    (tmp_path / f"{NAME}.json").write_text('{"training": {"meta_steps": 2}}')
    assert run(tmp_path, NAME) == 0
    assert [call[0] for call in calls] == ["measure", "tables"]


def test_default_presets_use_available_datasets():
    configs = [preset(name) for name in paper_length.default_names()]
    assert len(configs) == 15 + 4
    assert all(c.outer.meta_steps >= 60_000 and c.model.start == "" for c in configs)
    assert {c.data.dataset for c in configs} == {"omniglot", "cifar_fs"}


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["omniglot-5way-1shot-mmal-paper-length"], "did you mean omniglot-5way-1shot-maml-paper-length"),
        ([NAME, "--tasks", "1"], "--tasks: must be 2 or more, got 1."),
    ],
)
def test_invalid_input_exits_with_2(words: list[str], said: str, capsys: pytest.CaptureFixture[str]):
    assert main(["--paper-length", *words]) == 2
    assert said in capsys.readouterr().err


def test_result_has_published_accuracy_and_label():
    record = {"normalization": "transductive", "rotations": True}
    assert published_accuracy(NAME, record)[0] == "98.7 ± 0.4"
    assert label(NAME, "omniglot-5way-1shot") == "MAML, 60 000 meta-steps from random weights"


@pytest.mark.slow
def test_dry_run_trains_and_measures_both_modes(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    """A small network, two meta-steps, eight tasks; the result has both modes."""
    model = ModelConfig(kind="mlp", hidden=(4,), normalize=True)
    small = paper_length.small
    monkeypatch.setattr(paper_length, "small", lambda config: replace(small(config), model=model))
    kept: list[dict[str, Any]] = []
    write = measure.write_text
    monkeypatch.setattr(
        measure, "write_text", lambda path, text: (kept.append(json.loads(text)), write(path, text))
    )
    assert main(["--paper-length", "glyphs-5way-1shot-maml", "--dry"]) == 0
    (result,) = kept
    assert (result["subject"], result["training"]["meta_steps"]) == ("glyphs-5way-1shot-maml", 2)
    modes = [(r["normalization"], r["tasks"]) for r in result["measurements"]]
    assert modes == [("transductive", 8), ("inductive", 8)]
    assert "2 meta-steps, about" in capsys.readouterr().out
