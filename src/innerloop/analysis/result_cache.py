"""A cache of results.

Each file is named by a hash of everything its result depends on: weights, settings, images and code. No entry is ever
stale.
"""

import functools
import json
import warnings
from pathlib import Path

from innerloop.config.schema import Config
from innerloop.errors import InnerloopError
from innerloop.io.digests import sha256
from innerloop.io.folders import OwnFolder
from innerloop.io.safetensors_reader import largest
from innerloop.io.untrusted import JsonObject, parse_json, read_text, sha256_of
from innerloop.tasks.io.download import cache_folder


def _folder() -> Path:
    return cache_folder() / "analysis"


def _digest(*contents: bytes) -> str:
    """A hash of several byte strings, each preceded by its length."""
    return sha256(len(content).to_bytes(8, "little") + content for content in contents).hex()


def of_file(path: Path) -> str:
    """The hash of a file."""
    return sha256_of(path, largest())


@functools.cache
def _of_code() -> str:
    """The hash of this package's source."""
    root = Path(__file__).resolve().parents[1]
    return _digest(*(path.read_bytes() for path in sorted(root.rglob("*.py"))))


def of_images(config: Config) -> str:
    """A hash of the file names, sizes and times in a folder of images, or of a table; empty for other data sets.

    Published data sets have their own checksums.
    """
    if config.data.spec.needs_file:
        return of_file(Path(config.data.file))
    root = Path(config.data.folder)
    if not config.data.folder or not root.is_dir():
        return ""
    stamp = lambda path: f"{path.relative_to(root)} {path.stat().st_size} {path.stat().st_mtime_ns}"
    files = (path for path in sorted(root.rglob("*")) if path.is_file())
    # A name need not be UTF-8.
    return _digest(*(stamp(path).encode("utf-8", "surrogateescape") for path in files))


def key(experiment: str, facts: JsonObject) -> str:
    """The name of a result in the cache."""
    return _digest(json.dumps([experiment, facts, _of_code()], sort_keys=True).encode())


def load(name: str) -> object:
    """A cached result, or None."""
    try:
        path = _folder() / f"{name}.json"
        return parse_json(read_text(path), str(path), finite=False)
    except InnerloopError:  # missing, or truncated by a full disk: measure again
        return None


def save(name: str, result: object) -> None:
    """Store a result, or warn if that fails."""
    try:
        kept = OwnFolder(_folder())
        kept.make()
        kept.write(f"{name}.json", json.dumps(result) + "\n")
    except InnerloopError as trouble:
        warnings.warn(f"innerloop: the result of an experiment could not be cached ({trouble})", stacklevel=2)
