"""Callbacks for runs that log to tracking services; each needs the extra of its name."""

from innerloop.training.loggers.mlflow import MlflowLogger as MlflowLogger
from innerloop.training.loggers.trackio import TrackioLogger as TrackioLogger
from innerloop.training.loggers.wandb import WandbLogger as WandbLogger
