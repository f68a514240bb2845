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


def test_demo_opens_page_in_browser(opened: list[str], capsys: pytest.CaptureFixture[str]):
    assert main(["demo"]) == 0
    assert opened == [page_path().as_uri()]
    assert capsys.readouterr().out == f"Demo: {page_path()}\n"


def test_no_browser_option_prints_path(opened: list[str], capsys: pytest.CaptureFixture[str]):
    assert main(["demo", "--no-browser"]) == 0
    assert opened == []
    told = Path(capsys.readouterr().out.removeprefix("Demo: ").strip())
    assert "<h1>" in told.read_text()


def test_missing_display_prints_path(
    opened: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setattr("sys.platform", "linux")
    for name in DISPLAYS:
        monkeypatch.delenv(name, raising=False)
    assert main(["demo"]) == 0
    assert opened == []
    assert capsys.readouterr().out == f"Open this page in a browser: {page_path()}\n"


def test_failed_browser_start_prints_path(
    opened: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setattr(webbrowser, "open", lambda _: False)
    assert main(["demo"]) == 0
    assert capsys.readouterr().out.startswith("Open this page in a browser: ")
