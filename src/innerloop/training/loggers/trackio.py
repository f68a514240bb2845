"""Logging to Trackio, on this machine or in a Space: `callbacks=[TrackioLogger("my-project")]`."""

from pathlib import Path

from innerloop.io.untrusted import JsonObject
from innerloop.io.versions import required
from innerloop.training.loggers.service import keep_id, kept_id
from innerloop.training.progress.callbacks import Callback
from innerloop.training.progress.progress import Progress


class TrackioLogger(Callback):
    """Logs a run's metrics and settings; a resumed run continues the same Trackio run."""

    def __init__(self, project: str, **settings: object):
        """Nothing is logged before the run starts.

        Args:
            project: the name of the Trackio project.
            settings: further arguments of `trackio.init`, such as `space_id` or `group`.

        Raises:
            InnerloopError: if `trackio` is not installed.
        """
        self.trackio = required("trackio", "trackio", "trackio")
        self.project, self.settings = project, settings

    def on_start(self, folder: Path, settings: JsonObject, step: int) -> None:
        """Start the Trackio run, or continue it."""
        kept = kept_id(folder, "trackio", step)
        own = {"name": kept or folder.name, "resume": "must" if kept else "never"}
        self.run = self.trackio.init(project=self.project, config=settings, **(own | self.settings))
        keep_id(folder, "trackio", self.run.name)

    def on_block(self, progress: Progress) -> None:
        """Log the metrics."""
        self.run.log(progress.metrics, step=progress.step)

    def on_end(self, error: BaseException | None) -> None:
        """Finish the Trackio run."""
        self.run.finish()
