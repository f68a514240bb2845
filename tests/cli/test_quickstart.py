import signal
from dataclasses import replace

import pytest

from innerloop.cli import progress, quickstart

pytestmark = pytest.mark.usefixtures("undrawn")


def tiny(effort):
    """Two of the runs, as short as can be."""
    chosen = [quickstart._sinusoid("maml"), quickstart._sinusoid("reptile")]
    evaluation = lambda config: replace(config.evaluation, validation_tasks=4, steps=2)
    small = lambda config: replace(config.model, hidden=(8,))
    short = [replace(c, evaluation=evaluation(c), model=small(c)) for c in chosen]
    return [quickstart._shortened(config, 0.0001) for config in short]


def test_quickstart_writes_report_and_reuses_runs(command, complaint, tmp_path, monkeypatch):
    monkeypatch.setattr(quickstart, "_configs", tiny)
    code, out, _ = command("quickstart", "--folder", tmp_path, "--tasks", 4)
    assert code == 0
    for words in (
        "2/2 sinusoid-reptile",
        "MAML",
        "Reptile",
        "untrained",
        f"Report: {tmp_path / 'report.html'}",
    ):
        assert words in out
    assert (tmp_path / "report.html").is_file()
    again = command("quickstart", "--folder", tmp_path, "--tasks", 4)[1]
    assert again.count("already trained, reused") == 2
    monkeypatch.setattr(quickstart, "_configs", lambda effort: [replace(tiny(1)[0], seed=7)])
    assert "holds a run with other settings" in complaint("quickstart", "--folder", tmp_path)


def test_interrupted_quickstart_continues(command, tmp_path, monkeypatch):
    monkeypatch.setattr(quickstart, "_configs", lambda effort: tiny(1)[:1])
    with monkeypatch.context() as patch:
        patch.setattr(progress, "EVERY", 0.0)
        patch.setattr(progress, "in_words", lambda metrics: signal.raise_signal(signal.SIGTERM) or "")
        code, out, _ = command("quickstart", "--folder", tmp_path)
        assert code == 143
        assert "Run the same command to continue." in out
    assert command("quickstart", "--folder", tmp_path, "--tasks", 4)[0] == 0


def test_algorithms_share_task_settings():
    plan = quickstart._configs(1.0)
    assert [config.algorithm for config in plan[:5]] == ["maml", "fomaml", "anil", "reptile", "joint"]
    assert [config.algorithm for config in plan[5:]] == ["maml", "fomaml", "anil", "reptile"]
    for part in (plan[:5], plan[5:]):
        seen = {
            (c.data.protocol, c.data.shots, c.evaluation.queries, c.evaluation.normalization) for c in part
        }
        assert len(seen) == 1


@pytest.mark.parametrize(("option", "value"), [("--tasks", 1), ("--effort", 0), ("--effort", "nan")])
def test_out_of_range_numbers_are_rejected(complaint, option, value):
    assert f"{option}: must be" in complaint("quickstart", option, value)
