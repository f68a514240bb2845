"""Results kept by content: what was measured before, on these weights with these settings by this code, is read.

The name of a file is a hash of everything that the result depends on. Nothing has to be thrown away by hand: other
weights, settings, images or code have other names.
"""

import functools
import hashlib
import json
import warnings
from pathlib import Path
from typing import Any

from innerloop.config.schema import Config
from innerloop.errors import InnerloopError
from innerloop.io.files import OwnFolder
from innerloop.io.safetensors_reader import largest
from innerloop.io.untrusted import parse_json, read_bytes, read_text
from innerloop.tasks.io.download import cache_folder


def folder() -> Path:
    """Where results are kept."""
    return cache_folder() / "analysis"


def digest(*contents: bytes) -> str:
    """A hash of bytes, each part's end marked."""
    found = hashlib.sha256()
    for content in contents:
        found.update(len(content).to_bytes(8, "little") + content)
    return found.hexdigest()


def of_file(path: Path) -> str:
    """A file's hash."""
    return digest(read_bytes(path, largest()))


@functools.cache
def of_code() -> str:
    """The hash of this package's source."""
    root = Path(__file__).resolve().parents[1]
    return digest(*(path.read_bytes() for path in sorted(root.rglob("*.py"))))


def of_images(config: Config) -> str:
    """What tells one folder of images from another; published data sets have checksums and need none."""
    root = Path(config.data.folder)
    if not config.data.folder or not root.is_dir():
        return ""
    stamp = lambda path: f"{path.relative_to(root)} {path.stat().st_size} {path.stat().st_mtime_ns}"
    files = (path for path in sorted(root.rglob("*")) if path.is_file())
    return digest(
        *(stamp(path).encode("utf-8", "surrogateescape") for path in files)
    )  # names may be any bytes


def key(experiment: str, facts: dict[str, Any]) -> str:
    """The name of a result."""
    return digest(json.dumps([experiment, facts, of_code()], sort_keys=True).encode())


def load(name: str) -> Any:
    """A kept result, or None."""
    try:
        path = folder() / f"{name}.json"
        return parse_json(read_text(path), str(path), finite=False)
    except InnerloopError:  # absent, or cut short by a full disk: made again
        return None


def save(name: str, result: Any) -> None:
    """Keep a result; where that cannot be, it is measured again the next time."""
    try:
        kept = OwnFolder(folder())
        kept.make()
        kept.write(f"{name}.json", json.dumps(result) + "\n")
    except InnerloopError as trouble:
        warnings.warn(f"innerloop: an experiment's result is not kept ({trouble})", stacklevel=2)
