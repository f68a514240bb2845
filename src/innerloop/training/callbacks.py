"""What is told of a run while it goes on, to whoever wants to log, plot or end it."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Protocol, runtime_checkable

from innerloop.io.untrusted import JsonObject
from innerloop.training.loop import Progress


@runtime_checkable
class Callback(Protocol):
    """Subclass it, and override what you need.

    An exception of a callback ends the run after its state was saved, so that `resume=True` goes on from there.
    """

    def on_start(self, folder: Path, settings: JsonObject, step: int) -> None:
        """A sitting of the run begins.

        Args:
            folder: the run's folder.
            settings: what describes the run, as in its `fit.json`.
            step: the number of meta-steps so far; above 0 in a resumed run.
        """

    def on_block(self, progress: Progress) -> bool | None:
        """`log_every` meta-steps are done; validation scores are in `progress.metrics` where they are new.

        Returns:
            True to end the run here; its weights are written as at its end.
        """

    def on_end(self, error: BaseException | None) -> None:
        """The sitting is over; `error` is what ended it before its time: `Stopped`, or what went wrong."""


@contextmanager
def told(callbacks: Sequence[Callback], folder: Path, settings: JsonObject, step: int) -> Iterator[None]:
    """One sitting for these callbacks: each that was told of its start is told of its end."""
    with ExitStack() as ends:
        for callback in callbacks:
            callback.on_start(folder, settings, step)
            ends.push(lambda _, error, trace, callback=callback: bool(callback.on_end(error)))
        yield


def told_of_block(callbacks: Sequence[Callback], progress: Progress) -> bool:
    """Tell all of them; whether one of them ends the run."""
    asked = [callback.on_block(progress) for callback in callbacks]
    return any(asked)
