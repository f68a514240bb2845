"""Packages: their versions, and those that only an extra of this package installs."""

import functools
from importlib import import_module, metadata
from typing import Any

from innerloop.errors import InnerloopError


@functools.cache
def version(package: str) -> str:
    """The version of a package, or "(not installed)", as for this package in a clone on `PYTHONPATH`."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "(not installed)"


def required(module: str, extra: str, who: str, otherwise: str = "") -> Any:
    """Import a module of an extra. Raises InnerloopError, on behalf of `who`, if it is not installed."""
    try:
        return import_module(module)
    except ImportError as error:
        package = (error.name or module).partition(".")[0]
        wrong = f"needs the package `{package}`, which is not installed"
        hint = f"pip install 'innerloop[{extra}]'{otherwise}"
        raise InnerloopError(who, wrong, hint=hint) from None
