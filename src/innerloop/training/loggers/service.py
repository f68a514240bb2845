"""What loggers share: a service's run ID, kept in the folder so that runs can resume."""

import json
import os
from pathlib import Path

from innerloop.errors import InnerloopError
from innerloop.io.folders import OwnFolder
from innerloop.io.untrusted import read_object


def kept_id(folder: Path, service: str, step: int) -> str | None:
    """The service's ID of the run in the folder; None for a run that starts anew."""
    path = folder / f"{service}.json"
    if step == 0 or not os.path.lexists(path):
        return None
    found = read_object(path, follow=False).get("id")
    if not isinstance(found, str):
        raise InnerloopError(str(path), "must hold the `id` of a run", got=found, hint="remove the file")
    return found


def keep_id(folder: Path, service: str, name: str) -> None:
    """Keep the service's ID of the run in the folder."""
    OwnFolder(folder).write(f"{service}.json", json.dumps({"id": name}) + "\n")
