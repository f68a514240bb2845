"""A line of text on standard error that is updated in place, in a terminal or a notebook; elsewhere a line for each
update."""

import sys
from contextlib import suppress
from typing import Protocol

from innerloop.io.text import printable

WIDTH = 160


class Handle(Protocol):
    """What `IPython.display.display` returns for a display with an ID."""

    def update(self, obj: dict[str, str], *, raw: bool) -> None:
        """Replace the content of the display."""
        ...


class LiveLine:
    """A live line in the output of this process."""

    def __init__(self):
        self.handle: Handle | None = None

    @property
    def seconds(self) -> float:
        """The shortest time between two updates: none in a terminal, and long enough for a browser in a notebook."""
        return 0.0 if sys.stderr.isatty() else 0.2 if in_notebook() else 5.0

    def show(self, text: str) -> None:
        """Show a line, in place of the last one if possible; errors are ignored, as nobody may be reading."""
        line = printable(text, WIDTH)
        with suppress(OSError, ValueError):
            if in_notebook():
                self._display(line)
            else:
                begin, end = ("\r\x1b[K", "") if sys.stderr.isatty() else ("", "\n")
                print(begin + printable(line, WIDTH), end=end, file=sys.stderr, flush=True)

    def end(self) -> None:
        """Leave the line as it is; later output goes below."""
        self.handle = None
        with suppress(OSError, ValueError):
            if sys.stderr.isatty() and not in_notebook():
                print(printable(""), file=sys.stderr, flush=True)

    def _display(self, line: str) -> None:
        """Use a display with an ID, which the kernel can update: saved notebooks keep only its last state."""
        content = {"text/plain": line}
        if self.handle is None:
            self.handle = sys.modules["IPython"].display.display(content, raw=True, display_id=True)
        else:
            self.handle.update(content, raw=True)


def in_notebook() -> bool:
    """Whether this process is a notebook kernel; IPython in a terminal is not."""
    module = sys.modules.get("IPython")
    shell = None if module is None else module.get_ipython()
    return getattr(shell, "kernel", None) is not None
