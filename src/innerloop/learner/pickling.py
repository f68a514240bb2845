"""Pickling of objects that hold nested functions, as every Optax rule does.

A nested function is stored by the location of its code (module and qualified name) and the variables that it closes
over. No code is stored, so loading needs the same versions of the libraries.
"""

import inspect
import io
import pickle
import sys
from collections.abc import Callable
from types import CellType, CodeType, FunctionType
from typing import Any

from innerloop.errors import InnerloopError

LOCAL = ".<locals>."


def dumps(tree: object) -> bytes:
    """Pickle an object. Raises InnerloopError if it cannot be pickled, such as a function of an interactive cell."""
    buffer = io.BytesIO()
    try:
        _Pickler(buffer).dump(tree)
    except (pickle.PicklingError, AttributeError, TypeError, ValueError) as error:
        hint = "define functions at the top level of a module, or save the parameters alone"
        raise InnerloopError("pickle", f"an object cannot be pickled ({error})", hint=hint) from error
    return buffer.getvalue()


class _Pickler(pickle.Pickler):
    """A pickler that also handles nested functions."""

    def reducer_override(self, obj: object) -> Any:  # noqa: D102
        if not isinstance(obj, FunctionType) or LOCAL not in obj.__qualname__:
            return NotImplemented
        if obj.__code__ not in _codes(obj.__module__, obj.__qualname__):
            return NotImplemented
        cells = [cell.cell_contents for cell in obj.__closure__ or ()]
        state = obj.__defaults__, obj.__kwdefaults__, cells
        number = _codes(obj.__module__, obj.__qualname__).index(obj.__code__)
        return _blank, (obj.__module__, obj.__qualname__, number), state, None, None, _fill


def _codes(module: str, name: str) -> list[CodeType]:
    """The code objects with this qualified name inside a function of a module, in order."""
    outer, *inner = name.split(LOCAL)
    found: Any = sys.modules.get(module) or __import__(module, fromlist=["_"])
    for part in outer.split("."):
        found = getattr(found, part, None)
    found = inspect.unwrap(found) if callable(found) else None
    codes = [found.__code__] if isinstance(found, FunctionType) else []
    for part in inner:
        codes = [c for code in codes for c in code.co_consts if isinstance(c, CodeType) and c.co_name == part]
    return codes


def _blank(module: str, name: str, number: int) -> Callable[..., object]:
    """The function without the variables it closes over, which may hold the function itself."""
    codes = _codes(module, name)
    if number >= len(codes):
        hint = "load it with the library versions that saved it"
        raise InnerloopError("pickle", f"there is no function {module}.{name}", hint=hint)
    code = codes[number]
    cells = tuple(CellType() for _ in code.co_freevars)
    made = FunctionType(code, vars(sys.modules[module]), code.co_name, None, cells)
    made.__qualname__, made.__module__ = name, module
    return made


def _fill(function: FunctionType, state: tuple[Any, Any, list[Any]]) -> None:
    """Set a function's defaults and the variables it closes over."""
    function.__defaults__, function.__kwdefaults__, contents = state
    for cell, content in zip(function.__closure__ or (), contents, strict=True):
        cell.cell_contents = content
