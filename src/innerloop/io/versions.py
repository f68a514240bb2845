"""Package versions."""

from importlib import metadata


def version(package: str) -> str:
    """The version of a package, or "(not installed)", as for this package in a clone on `PYTHONPATH`."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "(not installed)"
