"""The cache of decoded arrays, which makes reading a data set again fast."""

import os
import warnings
from collections.abc import Callable
from pathlib import Path

from innerloop.errors import InnerloopError
from innerloop.io.files import AnyPath
from innerloop.tasks.class_arrays import ClassArrays
from innerloop.tasks.io import array_files
from innerloop.tasks.io.download import cache_folder


def cached(
    name: str, source: str, build: Callable[[], ClassArrays], folder: AnyPath | None = None
) -> ClassArrays:
    """The class arrays called `name`: from the cache if they are there and intact, otherwise built and then cached.

    Examples from the cache are a memory map whose checksum has been verified. A damaged cache entry is rebuilt, with a
    warning; if the cache cannot be written to, a warning says so and the arrays are not cached.

    Args:
        name: file name without its ending; it includes every parameter that changes the content.
        source: what the arrays are made from; an entry made from anything else is not used.
        build: makes the arrays.
        folder: the folder of the cache, by default `arrays/` in the cache folder.
    """
    try:
        path = (Path(folder) if folder else cache_folder() / "arrays") / f"{name}.npy"
    except InnerloopError as trouble:
        warnings.warn(f"innerloop: continuing without a cache: {trouble}", stacklevel=3)
        return build()
    kept = _kept(path, source)
    if kept is not None:
        return kept
    data = build()
    try:
        array_files.write(data, path, source)
    except OSError as trouble:
        warnings.warn(
            f"innerloop: continuing without a cache, {path} cannot be written: {trouble}", stacklevel=3
        )
    return data


def _kept(path: Path, source: str) -> ClassArrays | None:
    if not os.path.exists(path) and not os.path.exists(array_files.sidecar(path)):
        return None
    try:
        return array_files.read(path, verify=True, source=source)
    except InnerloopError as damage:
        warnings.warn(f"innerloop: ignoring and rebuilding the cached arrays: {damage}", stacklevel=4)
        return None
