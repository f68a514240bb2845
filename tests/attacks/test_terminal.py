"""Data is never markup, control characters are shown and not sent, JSON is JSON, and a spreadsheet runs nothing."""

import ast
import csv
import io
import json
import math
import re
import shutil
from pathlib import Path
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from innerloop import cli
from innerloop.cli import evaluate
from innerloop.cli.common import Terminal, console
from innerloop.cli.progress import counting
from innerloop.config.schema import Config
from innerloop.errors import InnerloopError
from innerloop.io.text import LIMIT, as_json, csv_cell, csv_text, printable
from innerloop.report import analysis_page, html_blocks, measurements
from innerloop.report.analysis_tables import _as_csv
from innerloop.report.plots import style
from innerloop.training.measurement import Band, ScoreMeasurement
from innerloop.training.storage.run_directory import RunFolder

SOURCE = Path(__file__).resolve().parents[2] / "src"
HOSTILE = "[red]a[/x]\x1b[31m\x07\u202e\x9b2J\r\n\udcff:smile:"
ESCAPED = r"[red]a[/x]\x1b[31m\x07\u202e\x9b2J\r\n\udcff:smile:"


def harmless(text: str) -> bool:
    """Whether a terminal only shows it."""
    return all(x == "\n" or printable(x) == x for x in text)


def test_printable_escapes_control_characters():
    assert printable(HOSTILE) == ESCAPED
    assert printable("θ ✓ äöü 猫 👩‍🚀") == "θ ✓ äöü 猫 👩‍🚀"
    assert printable("x" * 10**6, 100) == f"{'x' * 75} ... {'x' * 25}"


@given(st.text(st.characters(categories=None)))
def test_printable_gives_one_harmless_line(text: str):
    """It can be encoded and holds no control character."""
    shown = printable(text)
    assert harmless(shown)
    assert len(shown.encode("utf-8").decode("utf-8").splitlines()) <= 1


@pytest.mark.parametrize("terminal", [False, True])
def test_console_output_escapes_hostile_text(terminal: bool):
    """Printed and in cells, headings and bars; only the console's own styles are sent."""
    from rich.table import Table

    told = io.StringIO()
    out = Terminal(**{**vars_of(console()), "file": told, "force_terminal": terminal, "color_system": None})
    out.print(HOSTILE)
    grid = Table(HOSTILE)
    grid.add_row(HOSTILE)
    out.print(grid)
    with counting(out, HOSTILE) as watch:
        watch(1, 1)
    text = told.getvalue()
    assert text.count(ESCAPED) >= 4
    assert not set(text) & set("\x07\x9b\u202e\udcff")
    assert "\x1b[31m" not in text


def vars_of(out: Terminal) -> dict[str, Any]:
    """What `console` makes its consoles with."""
    assert not out._markup
    assert not out._emoji
    return {"markup": out._markup, "emoji": out._emoji, "highlight": False, "soft_wrap": True, "width": 160}


def test_source_prints_only_escaped_text():
    """Data from outside is shown by `console` and by `fail` alone, and columns of bars take no markup."""
    for path in SOURCE.rglob("*.py"):
        for call in (n for n in ast.walk(ast.parse(path.read_text("utf-8"))) if isinstance(n, ast.Call)):
            name = ast.unparse(call.func)
            assert name != "Console" or path.name == "download.py", path  # there it shows our own names
            assert "from_markup" not in name, path
            if name == "TextColumn":
                assert "markup=False" in ast.unparse(call), path
            if name == "print" and call.args:
                printed = ast.unparse(call)
                ours = (
                    "printable(",
                    "wrapped(",
                    "as_json(",
                    "usage()",
                    "version(",
                    "script(arguments.shell)",
                )
                assert any(x in printed for x in ours), path
            if name.endswith("json.dumps") and path.parent.name == "cli":
                raise AssertionError(f"{path} prints JSON by itself")


def test_errors_are_escaped_and_short(complaint, monkeypatch: pytest.MonkeyPatch):
    def dispatch(argv: object) -> int:
        raise InnerloopError("x.csv", "is wrong", got=HOSTILE + "cell," * 10**6)

    monkeypatch.setattr(cli, "dispatch", dispatch)
    told = complaint("list")
    assert ESCAPED in told
    assert harmless(told)
    assert len(told) < LIMIT + 50


@pytest.mark.parametrize("word", [HOSTILE, f"--{HOSTILE}", f"--seed={HOSTILE}", f"--outer.decay={HOSTILE}"])
def test_unknown_option_errors_are_escaped(word: str, command):
    code, out, err = command("train", "sinusoid-maml", word)
    assert (code, out) == (2, "")
    assert harmless(err)
    assert r"\x1b[31m" in err


def test_missing_name_errors_are_escaped(complaint, tmp_path: Path):
    for words in (("evaluate", HOSTILE), ("train", "--resume", HOSTILE), (HOSTILE,), ("list", HOSTILE)):
        assert harmless(complaint(*words))
    assert "got '[x]'" in complaint("evaluate", "[x]")


def test_plot_labels_are_not_parsed_as_math():
    from matplotlib.figure import Figure

    figure = Figure()
    axes = figure.subplots()
    axes.plot([1, 2], label=style.label("$^$\x1b$x"))
    axes.legend()
    figure.savefig(io.BytesIO(), format="svg")
    assert style.label("$^$\x1b") == r"\$^\$\x1b"


def test_html_text_is_escaped():
    assert html_blocks.escaped("<script>\x1b'\"&") == r"&lt;script&gt;\x1b&#x27;&quot;&amp;"
    assert html_blocks.nonbreaking("<b> ± \x1b") == r"&lt;b&gt;&nbsp;±&nbsp;\x1b"
    results = {"source": "<script>\x1b", "algorithm": "maml", "trained_meta_steps": 1, "metric": "loss"}
    results |= {"shots": 1, "inner_steps": 1, "inner_learning_rate": 0.1, "tasks": 2, "seed": 0}
    results |= {"tasks_looked_at_closely": 2, "normalization": "support"}
    page = analysis_page._page(results, [], {})
    assert "<script" not in page
    assert r"&lt;script&gt;\x1b" in page


FORMULAS = ('=HYPERLINK("http://x")', "+1+1", "-1+1", "@SUM(1)")


def test_csv_formulas_are_neutralized():
    predictions = [{"file": HOSTILE, "label": f, "probability": -0.5} for f in FORMULAS]
    text = csv_text(list(predictions[0]), predictions)
    rows = list(csv.DictReader(io.StringIO(text, newline="")))
    assert [row["label"] for row in rows] == [f"'{f}" for f in FORMULAS]
    assert {row["file"] for row in rows} == {ESCAPED}
    assert {row["probability"] for row in rows} == {"-0.5"}  # a number stays one
    assert _as_csv([{"layer": "=1", "x": -1}]) == "layer,x\n'=1,-1\n"
    assert csv_cell("\t=1") == r"\t=1"


def strict(text: str) -> Any:
    """JSON as the standard has it."""

    def refuse(word: str) -> None:
        raise AssertionError(f"{word} is no JSON")

    return json.loads(text, parse_constant=refuse)


def test_json_has_no_nan():
    value = {"a": math.nan, "b": [math.inf, (-math.inf, 1.5)], "c": {"d": None, "e": "NaN"}, "f": True}
    wanted = {"a": None, "b": [None, [None, 1.5]], "c": {"d": None, "e": "NaN"}, "f": True}
    assert strict(as_json(value)) == strict(as_json(value, indent=1)) == wanted


def test_non_finite_metrics_round_trip_as_nan(tmp_path: Path):
    run = RunFolder(tmp_path)
    run.log({"step": 1, "validation_loss": math.inf, "outer_loss": 0.5})
    assert strict((tmp_path / "metrics.jsonl").read_text("utf-8"))["validation_loss"] is None
    run.rewind(1)
    (record,) = run.metrics()
    assert math.isnan(record.pop("validation_loss"))
    assert record == {"step": 1, "outer_loss": 0.5}


SHORT = ("--outer.meta-steps", "2", "--outer.log-every", "2", "--model.hidden", "4", "--outer.snapshots", "0")
SHORT += ("--evaluation.validation-tasks", "2", "--evaluation.steps", "1", "--outer.meta-batch", "2")


@pytest.fixture(scope="module")
def diverging(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run in a folder of a hostile name; its inner loop blows up at test alone, where it takes a step."""
    folder = tmp_path_factory.mktemp("runs") / "[" / "x]\x1b[31m<script>"
    blown = ("--inner.steps", "0", "--inner.learning-rate", "1e25", "--folder", str(folder))
    assert cli.main(["train", "sinusoid-maml", *SHORT, *blown]) == 0
    return folder


def once(measure: Any) -> Any:
    """A measurement that is made once, whatever is asked: it takes seconds, and all are alike here."""
    made: list[Any] = []
    return lambda *args, **settings: made[0] if made else made.append(measure(*args, **settings)) or made[0]


def test_evaluate_reports_diverged_tasks(diverging: Path, command, monkeypatch: pytest.MonkeyPatch):
    """In JSON as null; in words with their number."""
    monkeypatch.setattr(evaluate, "_measured", once(evaluate._measured))
    code, out, _ = command("evaluate", diverging, "--tasks", 5, "--json")
    record = strict(out)
    assert (code, record["loss"], record["ci95"], record["diverged_tasks"]) == (0, None, None, 5)
    code, out, _ = command("evaluate", diverging, "--tasks", 5)
    assert code == 0
    assert "5 of 5 tasks diverged." in out
    assert printable(str(diverging)) in out
    assert harmless(out)
    strict((diverging / "metrics.jsonl").read_text("utf-8"))


def test_report_escapes_hostile_folder_names(
    diverging: Path, command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Their names are labels in figures and on the page, and a diverged run has a page too."""
    monkeypatch.setattr(measurements, "measure", once(measurements.measure))
    other = tmp_path / "$^$"
    shutil.copytree(diverging, other)
    code, out, _ = command("report", diverging, other, "--tasks", 2, "--out", tmp_path / "page.html")
    assert code == 0
    assert harmless(out)
    page = (tmp_path / "page.html").read_text("utf-8")
    assert harmless(page)
    assert "<script" not in page
    assert r"x]\x1b[31m&lt;script&gt;: 2 of 2 tasks diverged." in page
    assert "$^$" in page


def measured(diverged_tasks: int) -> ScoreMeasurement:
    curves, told = {"loss": Band([1.0], [0.1])}, {"source": "x", "preset": "x", "algorithm": "maml"}
    told |= {"score": "loss", "classes": "test", "steps": [0], "inner_steps": 0, "inner_learning_rate": 0.1}
    told |= {"seed": 0, "tasks": 5, "trained_meta_steps": 1, "seconds": 0.0, "shots": 1, "queries": 1}
    return ScoreMeasurement(curves=curves, diverged_tasks=diverged_tasks, **cast(Any, told))


def test_show_mentions_only_modes_with_diverged_tasks(capsys: pytest.CaptureFixture[str]):
    evaluate._show({"inductive": measured(0)}, Config())
    assert "diverged" not in capsys.readouterr().out
    evaluate._show({"inductive": measured(0), "support": measured(1)}, Config())
    assert re.findall(".*diverged.*", capsys.readouterr().out) == ["support: 1 of 5 tasks diverged."]
