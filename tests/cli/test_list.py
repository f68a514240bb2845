import json
import re

from innerloop.cli import common
from innerloop.config.presets.registry import all_presets


def test_every_preset_is_listed(command):
    code, out, _ = command("list")
    assert code == 0
    assert all(name in out for name in all_presets())


def test_narrow_terminal_keeps_distinguishing_columns(command, monkeypatch):
    monkeypatch.setattr(common.Terminal, "is_terminal", True)
    monkeypatch.setenv("COLUMNS", "80")
    out = re.sub(r"\x1b\[\d*m", "", command("list", "omniglot", "reptile")[1])
    assert "…" not in out
    heading = next(line for line in out.splitlines() if "preset" in line)
    assert heading.split() == ["preset", "inner", "loop", "weights"]


def test_list_filters_by_words(command):
    _, out, _ = command("list", "omniglot", "5way-1shot", "--json")
    names = [row["name"] for row in json.loads(out)]
    assert names == [name for name in all_presets() if name.startswith("omniglot-5way-1shot")]


def test_json_holds_the_settings(command):
    row = json.loads(command("list", "omniglot-20way-5shot-maml", "--json")[1])[0]
    assert (row["ways"], row["shots"], row["algorithm"], row["weights"]) == (20, 5, "maml", row["weights"])
    assert row["inner_steps_training"] == all_presets()["omniglot-20way-5shot-maml"].inner.steps


def test_unmatched_words_suggest_presets(complaint):
    assert complaint("list", "", "sinusoids").startswith("innerloop: list: no preset's name contains")
    told = complaint("list", "image-net2")
    assert "no preset's name contains these words, got image-net2; did you mean imagenet?" in told
    assert "did you mean omniglot 5shot maml?" in complaint("list", "omniglt", "5shto", "maml")
    assert "`innerloop list` lists them all" in complaint("list", "omniglot", "sinusoid")
