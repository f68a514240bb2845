"""Configs as JSON text or with dotted names; reading is strict, since the text may be untrusted."""

import dataclasses
import json
import sys
from typing import Any, Literal, get_args, get_origin, get_type_hints

from innerloop.config.schema import Config
from innerloop.errors import InnerloopError
from innerloop.io.untrusted import JsonObject, is_number, parse_json

WORDS = {
    int: "a whole number",
    float: "a finite number",
    bool: "true or false",
    str: "text",
    type(None): "null",
}
"""The values of plain types, in words."""


def to_json(config: Config) -> str:
    """The config as JSON text."""
    return json.dumps(dataclasses.asdict(config), indent=2) + "\n"


def from_json(text: str, who: str = "config.json") -> Config:
    """Read a config from JSON text.

    Args:
        text: JSON text, as from `to_json`.
        who: the source of the text, for messages.

    Raises:
        InnerloopError: if the text is not JSON, or has an unknown field, a wrong type, or a number out of
            bounds.
    """
    try:
        return _from_dict(Config, parse_json(text, who), who)
    except InnerloopError as error:  # errors about bounds do not name the file
        raise error if error.who.startswith(who) else InnerloopError(who, str(error)) from None


def flattened(values: JsonObject, prefix: str = "") -> JsonObject:
    """Nested settings as one dictionary with dotted names."""
    flat: JsonObject = {}
    for name, value in values.items():
        if isinstance(value, dict):
            flat |= flattened(value, f"{prefix}{name}.")
        else:
            flat[prefix + name] = value
    return flat


def _from_dict(cls: type, values: object, who: str) -> Any:
    """Build a config dataclass from JSON values, strictly."""
    if not isinstance(values, dict):
        raise InnerloopError(who, "must be an object with named fields", got=type(values).__name__)
    hints = get_type_hints(cls)
    unknown = sorted(set(values) - set(hints))
    if unknown:
        raise InnerloopError(
            who, f"unknown field {unknown[0][:80]!r}", hint="choose among: " + ", ".join(hints)
        )
    return cls(**{name: _value_of(hints[name], value, f"{who}: {name}") for name, value in values.items()})


def _value_of(kind: object, value: object, who: str) -> Any:
    """The value of one field, checked against its type."""
    if dataclasses.is_dataclass(kind):
        return _from_dict(kind, value, who)  # pyright: ignore[reportArgumentType]
    if isinstance(value, list):
        value = tuple(value)
    if not _matches(kind, value):
        hint = f"give {_in_words(kind)}"
        raise InnerloopError(who, "has the wrong value", got=repr(value)[:200], hint=hint)
    return float(value) if kind in (float, float | None) and isinstance(value, int) else value


def _in_words(kind: Any) -> str:
    """The values that a type takes, in words."""
    if get_origin(kind) is Literal:
        return " or ".join(map(repr, get_args(kind)))
    if get_origin(kind) is tuple:
        return f"a list in which each item is {_in_words(get_args(kind)[0])}"
    if get_args(kind):
        return " or ".join(map(_in_words, get_args(kind)))
    return WORDS[kind]


def _matches(kind: Any, value: Any) -> bool:
    """Whether a JSON value fits a type: literals, numbers, strings, tuples of them, and unions with None."""
    if get_origin(kind) is Literal:
        return value in get_args(kind)
    if get_origin(kind) is tuple:
        return isinstance(value, tuple) and all(_matches(get_args(kind)[0], v) for v in value)
    if get_args(kind):
        return any(_matches(option, value) for option in get_args(kind))
    if kind is float:
        return is_number(value) and -sys.float_info.max <= value <= sys.float_info.max  # false for NaN
    return isinstance(value, kind) and (kind is bool or not isinstance(value, bool))
