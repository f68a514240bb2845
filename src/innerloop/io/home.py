"""Paths that start with a home folder (`~/x`, `~name/x`)."""

import os
from pathlib import Path

from innerloop.errors import InnerloopError


def expanded(path: str | os.PathLike[str], who: str) -> Path:
    """The path with `~` expanded. Raises InnerloopError if there is no such home folder."""
    try:
        return Path(path).expanduser()
    except RuntimeError:  # no such user, or the current one has neither HOME nor a passwd entry
        hint = "give the full path"
        raise InnerloopError(
            who, "names a home folder that does not exist", got=repr(str(path)), hint=hint
        ) from None
