"""Every reader of outside bytes. `READERS[name](folder)` gives `attempt(draw)`: one hostile input, written and read.

An attempt may return or raise InnerloopError; anything else is a finding.
"""

import random
from collections.abc import Callable
from pathlib import Path

from tests.fuzz import of_data, of_runs

Attempt = Callable[[random.Random], None]

READERS: dict[str, Callable[[Path], Attempt]] = {
    "zip archives": of_data.zips,
    "tar archives": of_data.tars,
    "CIFAR-100 binary": of_data.cifar_binary,
    "pictures": of_data.pictures,
    "picture folders": of_data.picture_folders,
    "CSV of points": of_data.points,
    "CSV and Parquet tables": of_data.own_tables,
    "CSV of mini-ImageNet": of_data.tables,
    "cached arrays": of_data.arrays,
    "config JSON": of_runs.configs,
    "run folders": of_runs.run_files,
    "safetensors weights": of_runs.weights_files,
    "sizes in configs": of_runs.sizes_in_configs,
    "adapted learners": of_runs.adapted_files,
    "checkpoints": of_runs.checkpoints,
    "command lines": of_runs.command_lines,
}
