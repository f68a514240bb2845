"""Text and JSON that somebody else may have written: read whole, or refused in one sentence.

`json` alone raises five kinds of errors on hostile text: bad bytes, bad syntax, nesting too deep, numbers too long, and
lone surrogates. Here they are one.
"""

import json
from pathlib import Path
from typing import Any

from innerloop.errors import InnerloopError

RESTORE = "restore the file"


def read_text(path: Path) -> str:
    """The text of a UTF-8 file. Raises InnerloopError if it cannot be read or is no text."""
    try:
        return path.read_text("utf-8")
    except UnicodeDecodeError as trouble:
        raise InnerloopError(str(path), f"is no text ({trouble.reason})", do=RESTORE) from None
    except OSError as trouble:
        raise InnerloopError(str(path), f"cannot be read ({trouble.strerror})") from None


def parse_json(text: str, who: str) -> Any:
    """A JSON value. Raises InnerloopError for anything that is none, or is nested too deeply."""
    try:
        value = json.loads(text)
        json.dumps(value, ensure_ascii=False).encode("utf-8")  # a lone surrogate could not be written again
    except RecursionError:
        raise InnerloopError(who, "is not JSON (nested too deeply)", do=RESTORE) from None
    except ValueError as trouble:
        raise InnerloopError(who, f"is not JSON ({trouble})", do=RESTORE) from None
    return value


def read_object(path: Path) -> dict[str, Any]:
    """A file that holds one JSON object. Raises InnerloopError for anything else."""
    value = parse_json(read_text(path), str(path))
    if not isinstance(value, dict):
        raise InnerloopError(str(path), "must hold one JSON object", got=type(value).__name__, do=RESTORE)
    return value


def is_number(value: Any) -> bool:
    """Whether a JSON value is a number (true and false are none)."""
    return isinstance(value, int | float) and not isinstance(value, bool)
