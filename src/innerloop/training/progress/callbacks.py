"""Callbacks: hooks into a run in progress, to log, plot or end it."""

import warnings
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Literal, Protocol, runtime_checkable

from innerloop.errors import InnerloopError, first_line
from innerloop.io.untrusted import JsonObject
from innerloop.training.progress.progress import Progress


@runtime_checkable
class Callback(Protocol):
    """Base class of callbacks; override the methods that you need.

    If a callback raises an exception, the state is saved before the run ends, so that `resume=True` can continue it.
    """

    def on_start(self, folder: Path, settings: JsonObject, step: int) -> None:
        """Called when the run starts or resumes.

        Args:
            folder: the run's folder.
            settings: the description of the run, as in its `fit.json`.
            step: the number of meta-steps so far; above 0 in a resumed run.
        """

    def on_block(self, progress: Progress) -> bool | None:
        """Called after every `log_every` meta-steps; `progress.metrics` includes any new validation scores.

        Returns:
            True to end the run here; the final weights are still written.
        """

    def on_end(self, error: BaseException | None) -> None:
        """Called when the run ends; `error` is the exception that ended it early (such as `Stopped`), or None."""


def check_callbacks(callbacks: object, who: str = "fit") -> None:
    """Raise InnerloopError, on behalf of `who`, unless this is a sequence of callback instances (not classes)."""
    given = list(callbacks) if isinstance(callbacks, Sequence) else [callbacks]
    wrong = [each for each in given if isinstance(each, type) or not isinstance(each, Callback)]
    if wrong or not isinstance(callbacks, Sequence):
        got = repr((wrong or given)[0])
        hint = "pass instances of subclasses of innerloop.Callback: `callbacks=[Mine()]`"
        raise InnerloopError(who, "`callbacks` must be a list of callbacks", got=got, hint=hint)


@contextmanager
def callbacks_running(
    callbacks: Sequence[Callback], folder: Path, settings: JsonObject, step: int
) -> Iterator[None]:
    """Call `on_start` of each callback and, at the end, `on_end` of each that was started."""
    with ExitStack() as ends:
        for callback in callbacks:
            callback.on_start(folder, settings, step)
            ends.push(lambda _, error, trace, callback=callback: _end(callback, error))
        yield


def _end(callback: Callback, error: BaseException | None) -> Literal[False]:
    """Call `on_end` of one callback. An exception from it must not hide the error that ended the run."""
    try:
        callback.on_end(error)
    except Exception as own:
        if error is None:
            raise
        message = (
            f"innerloop: `{type(callback).__name__}.on_end` raised {type(own).__name__} ({first_line(own)})"
        )
        warnings.warn(message, stacklevel=2)
    return False
