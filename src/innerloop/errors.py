"""The library's error class.

A message says where the error occurred, what was wrong, what was received and what to do. The command prints it as one
sentence and exits with code 2.
"""

import operator
import re
from collections.abc import Callable, Hashable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any


def check_choice(who: str, name: str, value: object, choices: Iterable[object]) -> None:
    """Raise InnerloopError, on behalf of `who`, unless the value of `name` is one of the choices."""
    known = list(choices)
    if not isinstance(value, Hashable) or value not in known:  # arrays are compared value by value
        hint = "choose among: " + ", ".join(map(str, known))
        raise InnerloopError(who, f"`{name}` is unknown", got=repr(value), hint=hint)


def did_you_mean(
    name: str, known: Iterable[str], otherwise: str, *, most: int = 1, cutoff: float = 0.6
) -> str:
    """A hint about an unknown name: at most `most` known names with a similar spelling, or `otherwise`."""
    import difflib  # only for errors

    near = difflib.get_close_matches(name, list(known), most, cutoff)
    return f"did you mean {' or '.join(near)}?" if near else otherwise


def check_flag(who: str, name: str, value: object) -> None:
    """Raise InnerloopError, on behalf of `who`, unless the value of `name` is a boolean."""
    if not isinstance(value, Hashable) or value not in (True, False):
        raise InnerloopError(who, f"`{name}` must be True or False", got=repr(value))


def check_count(who: str, name: str, value: object, minimum: int = 1, maximum: int | None = None) -> int:
    """Return the value of `name` as an `int`.

    Raises:
        InnerloopError: on behalf of `who`, if the value is not a whole number or lies outside `minimum`..`maximum`.
    """
    try:
        number = operator.index(value)  # pyright: ignore[reportArgumentType]
    except TypeError:
        number = None
    if number is None or isinstance(value, bool):
        raise InnerloopError(who, f"`{name}` must be a whole number", got=repr(value))
    if number < minimum:
        raise InnerloopError(who, f"`{name}` must be {minimum} or more", got=number)
    if maximum is not None and number > maximum:
        raise InnerloopError(who, f"`{name}` must be {maximum} or less", got=number)
    return number


def check_counts(who: str, name: str, values: object, length: int | None = None) -> tuple[int, ...]:
    """Return the values of `name` as a tuple of `int`, `length` of them if it is given.

    Raises:
        InnerloopError: on behalf of `who`, if there are not so many values, or one is not a whole number above 0.
    """
    try:
        found = tuple(values)  # pyright: ignore[reportArgumentType]
    except TypeError:
        found = None
    if found is None or length not in (None, len(found)):
        count = "" if length is None else f"{length} "
        raise InnerloopError(who, f"`{name}` must be a sequence of {count}whole numbers", got=repr(values))
    return tuple(check_count(who, name, value) for value in found)


def check_names(who: str, name: str, values: object) -> list[str]:
    """Return the value of `name` as a list of strings. Raises InnerloopError, on behalf of `who`, if it is not one."""
    try:
        found: list[Any] = [] if isinstance(values, str) else list(values)  # pyright: ignore[reportArgumentType]
    except TypeError:
        found = [None]
    if isinstance(values, str) or not all(isinstance(value, str) for value in found):
        raise InnerloopError(who, f"`{name}` must be a list of names", got=repr(values))
    return found


def first_line(error: BaseException) -> str:
    """The first line of another library's error message, or the name of the error if the message is empty."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def _shortened(text: str, maximum: int = 400) -> str:
    """Truncate a value for a message, as it may have a million columns, and join the lines of an array."""
    text = re.sub(r"\n+( +|(?=\[))", " ", text)
    return text if len(text) <= maximum else f"{text[:maximum]}..."


class InnerloopError(ValueError):
    """Invalid input, reported in one sentence: where, what was wrong, what was received and what to do.

    Attributes:
        who: the function, setting or file that the message is about.
    """

    def __init__(self, who: str, wrong: str, *, got: object = None, hint: str = "") -> None:
        self.who = who
        message = f"{who}: {wrong}"
        if got is not None:
            message += f", got {_shortened(str(got))}"
        if hint:
            message += f"; {hint}"
        super().__init__(message + ("" if message.endswith((".", "?")) else "."))

    @property
    def problem(self) -> str:
        """The message without `who`."""
        return str(self).removeprefix(f"{self.who}: ")

    def __reduce__(self) -> tuple[Callable[..., "InnerloopError"], tuple[object, ...], dict[str, object]]:
        """Pickle the finished message, with the plain values that were set on the error."""
        state: dict[str, object] = {
            name: value for name, value in vars(self).items() if isinstance(value, str | int | float | None)
        }
        return _with_message, (type(self), str(self)), state


@contextmanager
def explained(
    who: str,
    wrong: str,
    *,
    got: object = None,
    hint: str = "",
    errors: tuple[type[Exception], ...] = (TypeError, ValueError),
) -> Iterator[None]:
    """Turn another library's errors into an InnerloopError that ends with their first line."""
    try:
        yield
    except InnerloopError:
        raise
    except errors as error:
        raise InnerloopError(who, f"{wrong} ({first_line(error)})", got=got, hint=hint) from error


def _with_message(cls: type[InnerloopError], message: str) -> InnerloopError:
    """An unpickled error with a finished message."""
    return cls.__new__(cls, message)
