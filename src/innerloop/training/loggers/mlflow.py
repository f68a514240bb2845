"""Logging to MLflow: `callbacks=[MlflowLogger("my-experiment")]`."""

import time
from pathlib import Path

from innerloop.config.serialization import flattened
from innerloop.io.untrusted import JsonObject
from innerloop.io.versions import required
from innerloop.training.interruption.signals import Stopped
from innerloop.training.loggers.service import keep_id, kept_id
from innerloop.training.progress.callbacks import Callback
from innerloop.training.progress.progress import Progress

ARRAYS = ("parameters", "optimizer", "programs")
"""Settings in a `fit.json` that are not logged: they have an entry for every array or program."""


class MlflowLogger(Callback):
    """Logs a run's metrics and settings; a resumed run continues the same MLflow run."""

    def __init__(self, experiment: str, tracking_uri: str | None = None):
        """Nothing is sent before the run starts.

        Args:
            experiment: the name of the MLflow experiment; created if it does not exist.
            tracking_uri: the URI of a server or database (None: MLflow's own setting).

        Raises:
            InnerloopError: if `mlflow` is not installed.
        """
        self.mlflow = required("mlflow", "mlflow", "mlflow")
        self.experiment, self.client = experiment, self.mlflow.MlflowClient(tracking_uri)

    def on_start(self, folder: Path, settings: JsonObject, step: int) -> None:
        """Start the MLflow run, or continue it."""
        own = kept_id(folder, "mlflow", step)
        if own is None:
            found = self.client.get_experiment_by_name(self.experiment)
            where = found.experiment_id if found else self.client.create_experiment(self.experiment)
            own = self.client.create_run(where, run_name=folder.name).info.run_id
            keep_id(folder, "mlflow", own)
            for name, value in flattened({n: x for n, x in settings.items() if n not in ARRAYS}).items():
                self.client.log_param(own, name, value)
        self.run_id = own
        self.client.update_run(own, status="RUNNING")

    def on_block(self, progress: Progress) -> None:
        """Log the metrics."""
        now, step = int(1000 * time.time()), progress.step
        made = self.mlflow.entities.Metric
        metrics = [made(name, value, now, step) for name, value in progress.metrics.items()]
        self.client.log_batch(self.run_id, metrics=metrics)

    def on_end(self, error: BaseException | None) -> None:
        """Set the status in which the run ended."""
        stopped = "KILLED" if isinstance(error, Stopped) else "FAILED"
        self.client.set_terminated(self.run_id, "FINISHED" if error is None else stopped)
