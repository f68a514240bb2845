"""Callbacks for tests."""

from collections.abc import Callable
from typing import Any

from innerloop.training.progress.callbacks import Callback
from innerloop.training.progress.progress import Progress


class EachBlock(Callback):
    """Calls a function after every block; the run ends if it returns True."""

    def __init__(self, call: Callable[[Progress], Any]):
        self.call = call

    def on_block(self, progress: Progress) -> bool | None:
        return self.call(progress)
