"""The names of what a run writes."""

from enum import StrEnum


class RunFile(StrEnum):
    """The names of the files and folders that a run writes in its folder, besides its lock."""

    CONFIG = "config.json"
    ENVIRONMENT = "environment.json"
    METRICS = "metrics.jsonl"
    CLOCK = "clock.json"
    WEIGHTS = "weights.safetensors"
    CHECKPOINTS = "checkpoints"
    DAMAGED = "damaged"  # unusable checkpoints
    SNAPSHOTS = "snapshots"
    TENSORBOARD = "tensorboard"
    PICTURES = "pictures.png"
    TABLE = "table.json"  # how the table's columns are prepared
    BLOCK = "block.json"
    FIT = "fit.json"
    BEST = "best.safetensors"
