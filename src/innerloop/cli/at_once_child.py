"""The child process that runs one of several simultaneous trainings; see `at_once`."""

import json
import sys
from pathlib import Path

from innerloop.cli.common import start_jax
from innerloop.cli.distributed import end_with_parent
from innerloop.cli.train import train_into
from innerloop.config.serialization import from_json


def child() -> int:
    """Train as instructed on standard input and return the exit code."""
    order = json.load(sys.stdin)
    end_with_parent(order["parent"])
    start_jax(order["devices"])
    config = from_json(order["config"])
    return train_into(Path(order["folder"]), config, resume=order["resume"], several=True)
