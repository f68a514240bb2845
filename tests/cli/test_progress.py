import io

import pytest
from rich.console import Console

from innerloop.cli import progress
from innerloop.training.progress.progress import Progress
from innerloop.training.progress.progress_words import duration, in_words


def lines(every, monkeypatch):
    monkeypatch.setattr(progress, "EVERY", every)
    out = io.StringIO()
    with progress.training(Console(file=out, width=200), "run") as watch:
        for step in range(1, 5):
            metrics = {"outer_loss": 1 / step} | ({"validation_accuracy": 0.5} if step == 2 else {})
            watch.on_block(Progress(step, 4, 1234.5, 60.0 * (4 - step), metrics))
    return out.getvalue().splitlines()


def test_plain_output_is_throttled_but_includes_last_step(monkeypatch):
    assert len(lines(1e9, monkeypatch)) == 2
    shown = lines(0.0, monkeypatch)
    assert len(shown) == 5
    assert shown[1].endswith("1/4 meta-steps, 3 min 00 s left  1 234 tasks/s  outer loss 1.0000")
    assert "done" in shown[4]
    assert "validation accuracy 50.0 %" in shown[4]


def test_time_left_is_unknown_while_only_compilation_is_timed(monkeypatch):
    monkeypatch.setattr(progress, "EVERY", 0.0)
    out, nan = io.StringIO(), float("nan")
    with progress.training(Console(file=out, width=200), "run") as watch:
        watch.on_block(Progress(1, 4, nan, nan, {"outer_loss": 1.0}, nan))
        watch.on_block(Progress(4, 4, nan, 0.0, {"outer_loss": 1.0}))
    assert out.getvalue().splitlines()[1:] == [
        "run: 1/4 meta-steps, estimating the time left  outer loss 1.0000",
        "run: 4/4 meta-steps, done  outer loss 1.0000",
    ]


def test_time_left_excludes_compilation(monkeypatch):
    """Sixty seconds to the first hundred tasks, two for each hundred after."""
    monkeypatch.setattr(progress, "EVERY", 0.0)
    monkeypatch.setattr(progress.time, "monotonic", lambda: 0.0)
    out = io.StringIO()
    with progress.counting(Console(file=out, width=200), "run") as watch:
        for done, at in ((100, 60.0), (200, 62.0)):
            monkeypatch.setattr(progress.time, "monotonic", lambda at=at: at)
            watch(done, 400)
    assert out.getvalue().splitlines()[1:] == [
        "run: 100/400 tasks, estimating the time left",
        "run: 200/400 tasks, 4 s left",
    ]


def test_terminal_shows_progress_bar():
    out = io.StringIO()
    terminal = Console(file=out, force_terminal=True, width=120)
    with progress.counting(terminal, "measuring") as watch:
        watch(200, 400)
        watch(400, 400)
    assert "400/400" in out.getvalue()


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(41.6, "42 s"), (125.0, "2 min 05 s"), (7620.0, "2 h 07 min"), (3599.9, "1 h 00 min")],
)
def test_duration_formats_seconds(seconds, words):
    assert duration(seconds) == words


def test_in_words_formats_validation_loss():
    assert in_words({"validation_loss": 0.5, "validation_diverged": 0.0}) == "validation loss 0.5000"


def test_in_words_counts_diverged_tasks():
    words = in_words({"outer_loss": 1.0, "validation_loss": 0.5, "validation_diverged": 2.0})
    assert words == "outer loss 1.0000  validation loss 0.5000 (2 tasks diverged)"
    one = in_words({"validation_accuracy": 0.5, "validation_diverged": 1.0})
    assert one == "validation accuracy 50.0 % (1 task diverged)"
