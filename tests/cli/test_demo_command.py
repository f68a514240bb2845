"""`innerloop demo`: what it prints, and when it opens a browser."""

import webbrowser
from pathlib import Path

import pytest

from innerloop.cli import main
from innerloop.cli.demo import DISPLAYS, page_path


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The addresses that a browser was asked for, on a machine with a display."""
    asked: list[str] = []
    monkeypatch.setenv("DISPLAY", ":0")
    monkeypatch.setattr(webbrowser, "open", lambda address: asked.append(address) or True)
    return asked


def test_it_opens_the_page(opened: list[str], capsys: pytest.CaptureFixture[str]):
    assert main(["demo"]) == 0
    assert opened == [page_path().as_uri()]
    assert capsys.readouterr().out == f"Demo: {page_path()}\n"


def test_without_a_browser_it_prints_the_path(opened: list[str], capsys: pytest.CaptureFixture[str]):
    assert main(["demo", "--no-browser"]) == 0
    assert opened == []
    told = Path(capsys.readouterr().out.removeprefix("Demo: ").strip())
    assert "<h1>" in told.read_text()


def test_without_a_display_it_prints_the_path(
    opened: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setattr("sys.platform", "linux")
    for name in DISPLAYS:
        monkeypatch.delenv(name, raising=False)
    assert main(["demo"]) == 0
    assert opened == []
    assert capsys.readouterr().out == f"Open this page in a browser: {page_path()}\n"


def test_a_browser_that_does_not_start(
    opened: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setattr(webbrowser, "open", lambda _: False)
    assert main(["demo"]) == 0
    assert capsys.readouterr().out.startswith("Open this page in a browser: ")
