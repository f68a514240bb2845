"""Logging to Weights & Biases: `callbacks=[WandbLogger("my-project")]`."""

from pathlib import Path

from innerloop.io.untrusted import JsonObject
from innerloop.io.versions import required
from innerloop.training.loggers.service import keep_id, kept_id
from innerloop.training.progress.callbacks import Callback
from innerloop.training.progress.progress import Progress

STEP = "meta_step"
"""The x-axis of all charts: a resumed run may log a step again, which `wandb`'s own step counter does not accept."""


class WandbLogger(Callback):
    """Logs a run's metrics and settings; a resumed run continues the same W&B run."""

    def __init__(self, project: str, **settings: object):
        """Nothing is sent before the run starts.

        Args:
            project: the name of the W&B project.
            settings: further arguments of `wandb.init`, such as `entity`, `tags` or `mode="offline"`.

        Raises:
            InnerloopError: if `wandb` is not installed.
        """
        self.wandb = required("wandb", "wandb", "wandb")
        self.project, self.settings = project, settings

    def on_start(self, folder: Path, settings: JsonObject, step: int) -> None:
        """Start the W&B run, or continue it."""
        own = {"name": folder.name, "id": kept_id(folder, "wandb", step), "resume": "allow"}
        self.run = self.wandb.init(project=self.project, config=settings, **(own | self.settings))
        keep_id(folder, "wandb", self.run.id)
        self.run.define_metric("*", step_metric=STEP)

    def on_block(self, progress: Progress) -> None:
        """Log the metrics."""
        self.run.log({STEP: progress.step, **progress.metrics})

    def on_end(self, error: BaseException | None) -> None:
        """Finish the W&B run, as failed if an error ended the training."""
        self.run.finish(exit_code=0 if error is None else 1)
