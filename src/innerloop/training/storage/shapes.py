"""Compare the arrays of a file with those of a model."""

from collections.abc import Mapping
from typing import Any

from innerloop.errors import InnerloopError

HINT = "use the config that it was trained with"


def check_same_shapes(
    wanted: Mapping[str, Any], found: Mapping[str, Any], who: str, hint: str = HINT
) -> None:
    """Raise InnerloopError, on behalf of `who`, unless the names and shapes of two sets of arrays agree."""
    for path in sorted(set(wanted) | set(found)):
        if path not in wanted or path not in found or wanted[path].shape != found[path].shape:
            should = f"have {_shape_of(wanted, path)}" if path in wanted else "be absent"
            wrong = f"belongs to another model: `{path}` should {should}"
            raise InnerloopError(who, wrong, got=_shape_of(found, path), hint=hint)


def _shape_of(arrays: Mapping[str, Any], path: str) -> str:
    """Describe the shape of an array, if there is one."""
    return f"shape {arrays[path].shape}" if path in arrays else "nothing"
