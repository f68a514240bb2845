"""Bounds of numbers, given as annotations of fields: `steps: Annotated[int, Bounds(0, 1_000_000)] = 1`.

Upper bounds are far beyond any practical value. They keep sizes within 32 bits and step sizes within float32, so that
impossible settings are rejected at the start instead of overflowing later.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, fields
from functools import cache
from numbers import Integral, Real
from types import NoneType
from typing import Any, NamedTuple, get_args, get_type_hints

from innerloop.errors import InnerloopError
from innerloop.io.text import grouped, shown

INT32_MAX = 2**31 - 1
"""The largest signed 32-bit integer: the limit of step counters and array sizes."""


@dataclass(frozen=True)
class Bounds:
    """Inclusive bounds on a number, or on each element of a tuple.

    Attributes:
        low: the smallest value.
        high: the largest value.
        length: the largest number of elements, if the field is a tuple.
    """

    low: int | float
    high: int | float
    length: int | None = None


SEED = Bounds(0, 2**32 - 1)
"""Seeds of distinct random numbers: `jax.random.key` takes others too, but modulo 2**32."""
TEST_SEED = SEED
"""Seeds of held-out tasks."""
POSITIVE = Bounds(1e-30, 1e30)
"""Step sizes that are neither zero nor infinite in float32."""
NOT_NEGATIVE = Bounds(0, 1e30)
"""Step sizes that may be zero."""
POSITIVE_FRACTION = Bounds(1e-30, 1)
"""A fraction above 0."""
COUNTS = Bounds(1, 1_000_000)
"""Numbers of examples, of tasks vectorised at a time, and the like."""
STEPS = Bounds(0, 1_000_000)
"""Numbers of inner steps."""
TASKS = Bounds(2, 10_000_000)
"""Numbers of tasks in a measurement; a confidence interval needs at least two."""
FRACTION = Bounds(0, 1)
"""A fraction that may be 0."""
DEVICES = Bounds(1, 1024)
"""Numbers of CPU devices."""


class Field(NamedTuple):
    """The bounds of a field, whether it holds integers, and whether it may be None."""

    bounds: Bounds
    integer: bool
    optional: bool


@cache
def bounds_of(cls: type) -> dict[str, Field]:
    """The bounds of a dataclass's fields, by name."""
    plain, full = get_type_hints(cls), get_type_hints(cls, include_extras=True)
    kinds = {name: (hint, *get_args(hint)) for name, hint in plain.items()}
    return {
        field.name: Field(beside, float not in kinds[field.name], NoneType in kinds[field.name])
        for field in fields(cls)
        for beside in getattr(full[field.name], "__metadata__", ())
        if isinstance(beside, Bounds)
    }


def check_bounds(settings: object, who: Callable[[str], str]) -> None:
    """Raise InnerloopError for the first field of a dataclass that is out of bounds; `who(field)` names it."""
    for name, field in bounds_of(type(settings)).items():
        value = getattr(settings, name)
        if value is None and field.optional:
            continue
        if wrong := _wrong_of(value, field.bounds, field.integer):
            raise InnerloopError(who(name), wrong, got=_shown(value))


class Section:
    """Base class of settings; checks every number against its annotated bounds."""

    SECTION = ""
    """Prefix of the names of the fields; not annotated with a type, so that it is not a field itself."""

    def __post_init__(self) -> None:
        check_bounds(self, lambda name: f"{self.SECTION}{name}")


def check_number(who: str, value: object, bounds: Bounds, *, integer: bool = False) -> None:
    """Raise InnerloopError, on behalf of `who`, for a number that is out of bounds."""
    if wrong := wrong_number(value, bounds, integer):
        raise InnerloopError(who, wrong, got=_shown(value))


def _shown(value: object) -> str:
    """A value for the `got` of an error; text in quotes."""
    return shown(repr(value) if isinstance(value, str) else value)


def check_argument(who: str, name: str, value: Any, bounds: Bounds) -> None:
    """Raise InnerloopError, on behalf of `who`, unless the value of `name` is a number within bounds.

    A scalar that JAX traces is a number; its value is not known.
    """
    try:
        scalar = value.item() if getattr(value, "shape", None) == () and hasattr(value, "item") else value
    except TypeError:  # JAX's ConcretizationTypeError
        return
    if wrong := wrong_number(scalar, bounds, integers=False):
        raise InnerloopError(who, f"`{name}` {wrong}", got=repr(value))


def _wrong_of(value: object, bounds: Bounds, integers: bool) -> str:
    """What is wrong with a value, in words; empty if nothing is."""
    if bounds.length is None:
        return wrong_number(value, bounds, integers)
    if not isinstance(value, tuple | list) or len(value) > bounds.length:
        return f"must be {bounds.length} numbers or fewer"
    wrong = (wrong_number(x, bounds, integers) for x in value)
    return next((f"each {words}" for words in wrong if words), "")


def wrong_number(value: Any, bounds: Bounds, integers: bool) -> str:
    """What is wrong with a number, in words; empty if nothing is."""
    kind: Any = Integral if integers else Real  # NumPy's too
    if not isinstance(value, kind) or isinstance(value, bool):
        return "must be a whole number" if integers else "must be a number"
    if value != value or value in (math.inf, -math.inf):
        return "must be a finite number"
    if value < bounds.low:
        # A tiny lower bound means "above 0".
        return (
            "must be above 0"
            if value <= 0 < bounds.low < 1e-20
            else f"must be {_grouped(bounds.low)} or more"
        )
    return f"must be {_grouped(bounds.high)} or less" if value > bounds.high else ""


def check_product(factors: dict[str, int]) -> None:
    """Raise InnerloopError if sizes that are each within bounds give an array that is too large."""
    if math.prod(factors.values()) > INT32_MAX:
        got = " x ".join(map(str, factors.values()))
        wrong = f"the product must be {_grouped(INT32_MAX)} or less"
        raise InnerloopError(" x ".join(factors), wrong, got=got)


def _grouped(number: int | float) -> str:
    """A bound as text."""
    return grouped(number) if isinstance(number, int) else f"{number:g}"
