"""Paths that begin with a home folder (`~/x`, `~name/x`)."""

import os
from pathlib import Path

from innerloop.errors import InnerloopError


def expanded(path: str | os.PathLike[str], who: str) -> Path:
    """The path with `~` replaced. Raises InnerloopError if there is no such home folder."""
    try:
        return Path(path).expanduser()
    except RuntimeError:  # no such user; or this one has neither HOME nor an entry in the system's list
        do = "give the whole path"
        raise InnerloopError(
            who, "names a home folder that is not there", got=repr(str(path)), do=do
        ) from None
