"""What is told of a run while it goes on, to whoever wants to log, plot or end it."""

import warnings
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Literal, Protocol, runtime_checkable

from innerloop.errors import InnerloopError, first_line
from innerloop.io.untrusted import JsonObject
from innerloop.training.loop import Progress


@runtime_checkable
class Callback(Protocol):
    """Subclass it, and override what you need.

    If a callback raises an exception, the state is saved before the run ends, so that `resume=True` can continue it.
    """

    def on_start(self, folder: Path, settings: JsonObject, step: int) -> None:
        """Called when the run starts or resumes.

        Args:
            folder: the run's folder.
            settings: what describes the run, as in its `fit.json`.
            step: the number of meta-steps so far; above 0 in a resumed run.
        """

    def on_block(self, progress: Progress) -> bool | None:
        """Called after every `log_every` meta-steps; `progress.metrics` has validation scores if there are new ones.

        Returns:
            True to end the run here; its weights are written as at its end.
        """

    def on_end(self, error: BaseException | None) -> None:
        """Called when the run ends or stops; `error` is what ended it early (`Stopped` or another error), or None."""


def check_callbacks(callbacks: object) -> None:
    """Raise InnerloopError unless this is a sequence of callbacks; a class of them is none."""
    given = list(callbacks) if isinstance(callbacks, Sequence) else [callbacks]
    wrong = [each for each in given if isinstance(each, type) or not isinstance(each, Callback)]
    if wrong or not isinstance(callbacks, Sequence):
        got = repr((wrong or given)[0])
        do = "pass instances of subclasses of innerloop.Callback: `callbacks=[Mine()]`"
        raise InnerloopError("fit", "`callbacks` must be a list of callbacks", got=got, do=do)


@contextmanager
def told(callbacks: Sequence[Callback], folder: Path, settings: JsonObject, step: int) -> Iterator[None]:
    """One sitting for these callbacks: each that was told of its start is told of its end."""
    with ExitStack() as ends:
        for callback in callbacks:
            callback.on_start(folder, settings, step)
            ends.push(lambda _, error, trace, callback=callback: _end(callback, error))
        yield


def _end(callback: Callback, error: BaseException | None) -> Literal[False]:
    """Tell one of them of the end. What it raises must not hide the error that ended the run; that goes on its way."""
    try:
        callback.on_end(error)
    except Exception as own:
        if error is None:
            raise
        told = (
            f"innerloop: `{type(callback).__name__}.on_end` raised {type(own).__name__} ({first_line(own)})"
        )
        warnings.warn(told, stacklevel=2)
    return False


def told_of_block(callbacks: Sequence[Callback], progress: Progress) -> bool:
    """Tell all of them; whether one of them ends the run."""
    asked = [callback.on_block(progress) for callback in callbacks]
    return any(asked)
