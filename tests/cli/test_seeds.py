"""`train --seeds` and `compare`: trainings that differ by their seed, as one row of a table."""

import csv
import io
import json
import shutil

import numpy as np
import pytest

from innerloop.cli.seeds import seeds_of
from innerloop.errors import InnerloopError
from innerloop.report import measurements
from innerloop.training.storage.run_directory import RunFolder

SHORT = ("--outer.meta-steps", "4", "--outer.log-every", "2", "--evaluation.validation-tasks", "4")
SHORT += ("--evaluation.steps", "1", "--model.hidden", "8")


def trained(command, folder, algorithm: str, seeds: str) -> str:
    words = ("train", f"sinusoid-{algorithm}", *SHORT, "--folder", folder, "--seeds", seeds)
    code, out, err = command(*words)
    assert code == 0, err
    return out


@pytest.fixture(scope="module")
def folders(tmp_path_factory, quickly):
    """Two algorithms with two seeds each."""
    from innerloop.cli import main

    root = tmp_path_factory.mktemp("seeds")
    for algorithm in ("maml", "fomaml"):
        words = ("train", f"sinusoid-{algorithm}", *SHORT, "--seeds", "0,2")
        with quickly():
            assert main([*words, "--folder", str(root / algorithm)]) == 0
    return [root / name / f"seed-{seed}" for name in ("maml", "fomaml") for seed in (0, 2)]


def test_seeds_of_parses_ranges_and_lists():
    assert seeds_of("0..4") == [0, 1, 2, 3, 4]
    assert seeds_of("7") == [7]
    assert seeds_of("3, 1..2") == [3, 1, 2]


@pytest.mark.parametrize(
    "text", ["", "a", "4..0", "0..2,9..5", "1,1", "0..2,1", "-1", "0..99999", "1.5", "0..", "9" * 30]
)
def test_seeds_of_rejects_invalid_text(text: str):
    with pytest.raises(InnerloopError, match="--seeds"):
        seeds_of(text)


def test_seed_of_multi_seed_run_matches_single_run(command, folders, tmp_path):
    assert [RunFolder(folder).config().seed for folder in folders] == [0, 2, 0, 2]
    words = ("train", "sinusoid-maml", *SHORT, "--seed", 2, "--folder", tmp_path / "alone")
    assert command(*words)[0] == 0
    lines = [
        (folder / "metrics.jsonl").read_text() for folder in (tmp_path / "alone", folders[1], folders[0])
    ]
    assert lines[0] == lines[1] != lines[2]


@pytest.fixture
def two_seeds(folders, tmp_path):
    """A copy of the finished runs of MAML."""
    return shutil.copytree(folders[0].parent, tmp_path / "maml")


def test_rerunning_command_continues_unfinished_seeds(command, complaint, two_seeds):
    """What has ended stays; what was stopped is resumed; another training is not touched."""
    (two_seeds / "seed-2" / "weights.safetensors").unlink()
    less_memory = ("train", "sinusoid-maml", *SHORT, "--outer.chunk", 1, "--folder", two_seeds, "--seeds")
    assert "--outer.chunk: the resumed run keeps its own setting" in complaint(*less_memory, "2")
    before = (two_seeds / "seed-0" / "metrics.jsonl").stat().st_mtime_ns
    again = trained(command, two_seeds, "maml", "0,2")
    assert "innerloop compare" in again
    assert f"{two_seeds / 'seed-0'} is already finished." in again
    assert (two_seeds / "seed-2" / "weights.safetensors").is_file()
    assert (two_seeds / "seed-0" / "metrics.jsonl").stat().st_mtime_ns == before
    assert "already finished" in command(*less_memory, "0")[1]
    words = ("train", "sinusoid-fomaml", *SHORT, "--folder", two_seeds, "--seeds", "0,2")
    assert "holds a run with other settings" in complaint(*words)


def test_rerunning_with_more_meta_steps_extends_runs(command, complaint, two_seeds):
    """As `--resume` does; a run that has gone further stays as it is."""
    words = ("train", "sinusoid-maml", *SHORT[2:], "--folder", two_seeds, "--outer.meta-steps")
    code, out, err = command(*words, 6, "--seeds", "0")
    assert (code, "already finished" in out) == (0, False), err
    assert [record["step"] for record in RunFolder(two_seeds / "seed-0").metrics()] == [2, 4, 6]
    told = complaint(*words, 4, "--seeds", "0,2")
    assert (
        f"--outer.meta-steps: the run in {two_seeds / 'seed-0'} has already taken 6 meta-steps, got 4" in told
    )


def test_seeds_option_rejects_conflicting_options(complaint, tmp_path):
    words = ("train", "sinusoid-maml", "--seeds", "0..1", "--folder", tmp_path)
    assert "leave out --resume and --seed" in complaint(*words, "--seed", 0)
    assert "must look like 0..4" in complaint("train", "sinusoid-maml", "--seeds", "", "--folder", tmp_path)
    assert "needs a single process" in complaint(*words, "--distributed")
    assert "must look like 0" in complaint("train", "sinusoid-maml", "--seeds", "many", "--folder", tmp_path)


@pytest.fixture(scope="module")
def measured():
    """Measurements of runs by their folders."""
    return {}


@pytest.fixture
def measured_once(monkeypatch, measured):
    """What `compare` measures of a run, it measures once for all tables."""
    measure = measurements.measure

    def once(trained, **settings):
        key = (trained.source, settings["num_tasks"])
        if key not in measured:
            measured[key] = measure(trained, **settings)
        return measured[key]

    monkeypatch.setattr(measurements, "measure", once)


def compared(command, folders, form: str) -> str:
    code, out, err = command("compare", *folders, "--tasks", 8, "--format", form)
    assert code == 0, err
    return out


def test_compare_averages_seeds_and_pairs_gains(command, folders, measured_once):
    rows = json.loads(compared(command, folders, "json"))
    single = json.loads(compared(command, folders[:1], "json"))
    other = json.loads(compared(command, folders[1:2], "json"))
    assert [(row["run"], row["seeds"]) for row in rows] == [("MAML", 2), ("FOMAML", 2)]
    values = np.array([single[0]["mean"], other[0]["mean"]])
    assert rows[0]["mean"] == pytest.approx(values.mean())
    assert rows[0]["spread"] == pytest.approx(values.std(ddof=1))
    assert rows[0]["gain"] is None
    assert rows[1]["gain"] == pytest.approx(
        rows[0]["mean"] - rows[1]["mean"]
    )  # of losses the lower is better
    assert rows[1]["pairs"] == "seed by seed, 2 seeds"


def test_compare_writes_all_formats(command, folders, measured_once):
    exact = json.loads(compared(command, folders, "json"))
    (first, second) = csv.DictReader(io.StringIO(compared(command, folders, "csv")))
    assert float(first["mean"]) == exact[0]["mean"]
    assert (second["run"], first["gain"]) == ("FOMAML", "")
    markdown = compared(command, folders, "markdown").splitlines()
    assert "95 % interval" in markdown[-1]
    assert len({line.count("|") for line in markdown[:4]}) == 1
    assert first["spread_is"] == "standard deviation over seeds"
    latex = compared(command, folders, "latex")
    assert latex.count(r" \\") == 3
    assert r"$\pm$" in latex
    assert [line[:7] for line in latex.splitlines()[:2]] == ["% After", r"\begin{"]
    text = compared(command, folders, "text")
    assert "FOMAML" in text
    assert "standard deviation" in text


def test_rows_of_same_algorithm_are_named_by_folder(command, folders, tmp_path, measured_once):
    """Two trainings of one algorithm, of which the name of the folder tells which is which."""
    words = ("train", "sinusoid-maml", *SHORT, "--inner.steps", 2, "--folder", tmp_path / "two", "--seeds", 0)
    assert command(*words)[0] == 0
    several = [*folders[:2], tmp_path / "two" / "seed-0"]
    assert [row["run"] for row in json.loads(compared(command, several, "json"))] == ["maml", "two"]


def test_compare_needs_runs(complaint, tmp_path):
    assert "needs a run" in complaint("compare")
    assert "is not a run" in complaint("compare", tmp_path)


@pytest.mark.usefixtures("quick_processes")
def test_parallel_seeds_match_sequential_training(command, folders, tmp_path):
    words = ("train", "sinusoid-maml", *SHORT, "--folder", tmp_path, "--seeds", "0,2", "--at-once", 2)
    code, out, err = command(*words)
    assert code == 0, err
    assert "seed-2: done" in out
    for seed, alone in ((0, folders[0]), (2, folders[1])):
        ours, theirs = (RunFolder(folder).metrics() for folder in (tmp_path / f"seed-{seed}", alone))
        for one, other in zip(ours, theirs, strict=True):
            assert one == pytest.approx(
                other, rel=1e-5
            )  # other devices share the tasks: sums in another order
        assert "Trained: " in (tmp_path / f"output-seed-{seed}.txt").read_text()
    assert command(*words)[1].count("is already finished") == 2


def test_at_once_requires_seeds(complaint):
    assert "--seeds" in complaint("train", "sinusoid-maml", "--at-once", 2)
