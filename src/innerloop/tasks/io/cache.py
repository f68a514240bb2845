"""The cache of decoded arrays: what was read once is read again in a moment."""

import os
import warnings
from collections.abc import Callable
from pathlib import Path

from innerloop.errors import InnerloopError
from innerloop.tasks.class_arrays import ClassArrays
from innerloop.tasks.io import array_files
from innerloop.tasks.io.download import cache_folder


def cached(
    name: str, source: str, build: Callable[[], ClassArrays], folder: str | os.PathLike[str] | None = None
) -> ClassArrays:
    """The class arrays called `name`, from the cache if they are there and whole, else built and then kept.

    From the cache the examples come as a memory map, their checksum checked. A damaged cache is told in a
    warning and built again; a cache that cannot be written is told and done without.

    Args:
        name: file name without ending; it carries every parameter that changes the content.
        source: what the arrays are made from; an entry made from anything else is not used.
        build: makes the arrays.
        folder: where the cache lies, by default `arrays/` in the cache folder.
    """
    try:
        path = (Path(folder) if folder else cache_folder() / "arrays") / f"{name}.npy"
    except InnerloopError as trouble:
        warnings.warn(f"innerloop: going on without a cache: {trouble}", stacklevel=3)
        return build()
    kept = _kept(path, source)
    if kept is not None:
        return kept
    data = build()
    try:
        array_files.write(data, path, source)
    except OSError as trouble:
        warnings.warn(
            f"innerloop: going on without a cache, {path} cannot be written: {trouble}", stacklevel=3
        )
    return data


def _kept(path: Path, source: str) -> ClassArrays | None:
    if not path.exists() and not array_files.sidecar(path).exists():
        return None
    try:
        return array_files.read(path, mapped=True, verify=True, source=source)
    except InnerloopError as damage:
        warnings.warn(f"innerloop: the cache is not used and made again: {damage}", stacklevel=4)
        return None
