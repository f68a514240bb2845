"""Logging to Weights & Biases: `callbacks=[WandbLogger("my-project")]`."""

from pathlib import Path

from innerloop.io.untrusted import JsonObject
from innerloop.training.callbacks import Callback
from innerloop.training.loggers.service import keep_id, kept_id, package
from innerloop.training.loop import Progress

STEP = "meta_step"
"""The axis of all charts: a resumed run may log a step again, which `wandb` does not take as its own step."""


class WandbLogger(Callback):
    """Metrics and settings of a run; a resumed one goes on in the same run of the service."""

    def __init__(self, project: str, **settings: object):
        """Nothing is sent before the run begins.

        Args:
            project: where the run belongs.
            settings: whatever else `wandb.init` takes: `entity`, `tags`, `mode="offline"`.

        Raises:
            InnerloopError: `wandb` is not installed.
        """
        self.wandb, self.project, self.settings = package("wandb"), project, settings

    def on_start(self, folder: Path, settings: JsonObject, step: int) -> None:
        """Begin the run there, or go on with it."""
        own = {"name": folder.name, "id": kept_id(folder, "wandb", step), "resume": "allow"}
        self.run = self.wandb.init(project=self.project, config=settings, **(own | self.settings))
        keep_id(folder, "wandb", self.run.id)
        self.run.define_metric("*", step_metric=STEP)

    def on_block(self, progress: Progress) -> None:
        """Log the metrics."""
        self.run.log({STEP: progress.step, **progress.metrics})

    def on_end(self, error: BaseException | None) -> None:
        """End it, as failed if the run did not come to its end."""
        self.run.finish(exit_code=0 if error is None else 1)
