"""Checks of users' labels, and their conversion to class numbers."""

from collections.abc import Hashable, Sequence
from typing import Any

import numpy as np

from innerloop.errors import InnerloopError
from innerloop.learner.validation import check_length, to_array


def as_labels(y: Any, examples: int, who: str) -> list[Hashable]:
    """Convert labels to a list.

    Args:
        y: one hashable label per example.
        examples: the number of examples.
        who: the function that was called, for error messages.

    Raises:
        InnerloopError: for a wrong number of labels, or missing or unhashable labels.
    """
    if y is None:
        raise InnerloopError(who, "requires y to be passed, but the target y is None")
    y = y if not hasattr(y, "__array__") else to_array(y, "y", who)
    if hasattr(y, "ndim") and y.ndim != 1:
        hint = "give one label per example, not one-hot rows"
        raise InnerloopError(who, "y must have one axis", got=f"shape {y.shape}", hint=hint)
    try:
        given = list(y)
    except TypeError:
        got, hint = type(y).__name__, "give a list or an array"
        raise InnerloopError(who, "y must hold one label per example", got=got, hint=hint) from None
    check_length(len(given), examples, who)
    return [_as_label(label, who) for label in given]


def _as_label(label: Any, who: str) -> Hashable:
    """A label as a plain Python object."""
    if type(label) is tuple:
        return tuple(_as_label(part, who) for part in label)
    # JSON cannot represent NumPy scalars, and JAX scalars are not hashable.
    plain = label.item() if getattr(label, "ndim", None) == 0 else label
    try:
        hash(plain)
    except TypeError:
        hint = "use strings, numbers or tuples of them"
        raise InnerloopError(who, "labels must be hashable", got=type(label).__name__, hint=hint) from None
    if _is_missing(label):
        raise InnerloopError(who, "a label is missing", got=label, hint="remove the example")
    return plain


def _is_missing(label: object) -> bool:
    """Whether a label is a NaN of any kind, NaT or pandas's NA."""
    try:
        return bool(label != label)
    except TypeError:  # NA is neither equal nor unequal to anything
        return True


def class_numbers(y: object, shape: tuple[int, ...]) -> tuple[list[Hashable], np.ndarray]:
    """Convert labels to class numbers.

    Args:
        y: one hashable label per example.
        shape: the shape of the model's outputs, `(examples, classes)`.

    Returns:
        The distinct labels, and the number of each example's class.

    Raises:
        InnerloopError: for values instead of labels, fewer than two classes, more classes than outputs, and as
            `as_labels`.
    """
    _refuse_values(y)
    if len(shape) != 2:
        raise InnerloopError("apply", "scores must be [examples, classes]", got=f"shape {shape}")
    labels = as_labels(y, shape[0], "Learner.fit")
    classes = _distinct(labels)
    maximum = max(shape[1], 2)
    if len(classes) < 2:
        hint = "add examples of another class"
        raise InnerloopError("Learner.fit", "needs at least two classes", got="one class", hint=hint)
    if len(classes) > maximum:
        hint = "fit fewer classes, or start from a model with more outputs"
        wrong = f"this model has outputs for at most {maximum} classes"
        raise InnerloopError("Learner.fit", wrong, got=len(classes), hint=hint)
    number = {label: i for i, label in enumerate(classes)}
    return classes, np.array([number[label] for label in labels], np.int32)


def _refuse_values(y: object) -> None:
    """Raise InnerloopError if y holds fractions, as the targets of a regression do."""
    if not hasattr(y, "dtype"):
        return
    found = to_array(y, "y", "Learner.fit")
    if np.issubdtype(found.dtype, np.floating) and np.any(np.isfinite(found) & (found % 1 != 0)):
        hint = "make the learner with `classification=False` to predict values"
        raise InnerloopError("Learner.fit", "y must hold labels, not fractions", got=found.flat[0], hint=hint)


def _distinct(labels: Sequence[Hashable]) -> list[Hashable]:
    """The distinct labels: sorted, or in order of appearance if they cannot be compared."""
    met = list(dict.fromkeys(labels))
    try:
        return sorted(met)  # pyright: ignore[reportArgumentType]
    except TypeError:
        return met


def as_array(labels: Sequence[Hashable]) -> np.ndarray:
    """Labels as a 1-D array: of their own type if they are all strings or all numbers, else of objects."""
    kinds = {type(label) for label in labels}
    if len(kinds) == 1 and kinds <= {str, int, float, bool}:
        return np.array(labels)
    return np.fromiter(labels, object, len(labels))  # np.array would turn tuples into rows
