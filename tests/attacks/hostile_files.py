"""What stands in the place of a file, and configs of small models."""

import os
import re
import socket
from dataclasses import replace
from pathlib import Path
from typing import Any

from innerloop.config.presets.registry import preset
from innerloop.config.schema import Config

ANY = re.compile(r".*", re.DOTALL)
SPARSE = 30 << 30


def small(**model: Any) -> Config:
    config = preset("sinusoid-maml")
    return replace(config, model=replace(config.model, **{"hidden": (3,), **model}))


def make(path: Path, kind: str) -> Path:
    """A file that is none."""
    if kind == "FIFO":
        os.mkfifo(path)
    elif kind == "sparse":
        with open(path, "wb") as file:
            file.truncate(SPARSE)
    elif kind == "socket":
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(path))
    else:
        path.symlink_to({"device": "/dev/zero", "folder": "/", "nowhere": "/nowhere/at/all"}[kind])
    return path


KINDS = ("FIFO", "device", "folder", "nowhere", "sparse")
