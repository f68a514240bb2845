"""`innerloop demo`: open a page on which you draw five characters and watch four algorithms adapt."""

import os
import sys
import webbrowser
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from innerloop.cli.common import console, parse

DISPLAYS = ("DISPLAY", "WAYLAND_DISPLAY", "BROWSER")
"""Environment variables without which Linux has at most a text-mode browser."""


@dataclass(frozen=True)
class Demo:
    """Open a page: draw five characters, and watch MAML, FOMAML, Reptile and ANIL adapt to them step by step.

    The page is part of the package. It runs in the browser and needs no network.
    """

    no_browser: bool = False
    """Only print where the page is."""


def run(argv: Sequence[str]) -> int:
    """Run `innerloop demo` and return the exit code."""
    arguments = parse(Demo, argv)
    page = page_path()
    opened = not arguments.no_browser and _has_display() and webbrowser.open(page.as_uri())
    console().print(
        f"Demo: {page}" if opened or arguments.no_browser else f"Open this page in a browser: {page}"
    )
    return 0


def page_path() -> Path:
    """The path of the page."""
    return Path(str(resources.files("innerloop.report") / "demo" / "index.html"))


def _has_display() -> bool:
    """Whether a browser could show a window."""
    return sys.platform in ("darwin", "win32") or any(os.environ.get(name) for name in DISPLAYS)
