"""Package versions."""

import functools
from importlib import metadata


@functools.cache
def version(package: str) -> str:
    """The version of a package, or "(not installed)", as for this package in a clone on `PYTHONPATH`."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "(not installed)"
