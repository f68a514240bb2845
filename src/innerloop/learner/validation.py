"""Checks of users' examples and values, and their conversion to arrays."""

from typing import Literal

import jax
import numpy as np

from innerloop.errors import InnerloopError
from innerloop.io.text import counted

Numbers = Literal["bytes", "whole numbers", "floats"]
Shape = tuple[int | None, ...]
"""Shape of one example; None stands for any size."""


def as_inputs(x: object, shape: Shape | None, dtype: np.dtype, who: str) -> np.ndarray:
    """Convert examples to an array: bytes scaled to [0, 1], floats as `dtype`, other integers as int32.

    Args:
        x: examples, `[examples, ...]`.
        shape: the shape of one example (None: any).
        dtype: float32 or float64.
        who: the function that was called, for error messages.

    Raises:
        InnerloopError: for no examples, values that are not finite numbers, or examples of another shape.
    """
    values = _numbers(x, "x", dtype, who)
    if values.ndim < 1 or len(values) == 0:
        got = f"shape {values.shape}"
        raise InnerloopError(who, "x must hold at least one example", got=got, hint="give [examples, ...]")
    if values.size == 0:
        wrong = f"0 feature(s) (shape={values.shape}) while a minimum of 1 is required"
        raise InnerloopError(who, wrong)
    check_example_shape(values.shape[1:], shape, who)
    if values.dtype == np.uint8:
        return values.astype(dtype) / dtype.type(255)
    return values


def _numbers(values: object, name: str, dtype: np.dtype, who: str) -> np.ndarray:
    """Convert to a NumPy array of finite `dtype`, uint8 or int32."""
    if values is None:
        raise InnerloopError(who, f"requires {name} to be passed, but the target {name} is None")
    if hasattr(values, "toarray"):
        raise InnerloopError(
            who, f"{name} must be dense", got="a sparse matrix", hint=f"call {name}.toarray()"
        )
    array = to_array(values, name, who)
    if array.dtype == np.uint8:
        return array
    if array.dtype.kind in "iu":
        narrow = array.astype(np.int32)
        if (narrow != array).any():
            raise InnerloopError(who, f"whole numbers in {name} must fit 32 bits", hint="pass them as floats")
        return narrow
    # bfloat16 and similar types have kind V although they are numbers.
    if array.dtype.kind not in "bf" and not jax.numpy.issubdtype(array.dtype, jax.numpy.floating):
        raise InnerloopError(who, f"{name} must hold real numbers", got=f"dtype {array.dtype}")
    array = array.astype(dtype)
    bad = int(array.size - np.isfinite(array).sum())
    if bad:
        hint = "remove or fill those examples"
        raise InnerloopError(who, f"{name} must be finite", got=f"{bad} NaN or infinite values", hint=hint)
    return array


def to_array(values: object, name: str, who: str) -> np.ndarray:
    """Convert to a NumPy array of any type. Raises InnerloopError if that is not possible."""
    try:
        return np.asarray(values)
    except ValueError:
        raise InnerloopError(who, f"{name} must be one array", got="rows of different lengths") from None
    except TypeError:  # JAX keys, for example
        raise InnerloopError(who, f"{name} must be one array", got=type(values).__name__) from None


def check_shape(shape: object) -> None:
    """Raise InnerloopError unless this is the shape of one example, or None."""
    sizes = (shape,) if shape is None else shape
    if not isinstance(sizes, tuple | list) or not all(
        size is None or (isinstance(size, int | np.integer) and size > 0) for size in sizes
    ):
        hint = "give a tuple such as (28, 28, 1), with None for an axis of any size"
        raise InnerloopError(
            "Learner", "`shape` must be the shape of one example", got=repr(shape), hint=hint
        )


def numbers_of(x: object) -> Numbers:
    """What kind of numbers an array holds: bytes, which are scaled, other whole numbers, or anything else."""
    dtype = np.asarray(x).dtype
    return "bytes" if dtype == np.uint8 else "whole numbers" if dtype.kind in "iu" else "floats"


def check_same_numbers(x: object, fitted: Numbers | None, who: str) -> None:
    """Raise InnerloopError for bytes after a fit on other whole numbers, or vice versa.

    Bytes are scaled to [0, 1] and others are not. None: what was fitted is unknown.
    """
    if {numbers_of(x), fitted} == {"bytes", "whole numbers"}:
        hint = "pass both as uint8, or both as floats"
        wrong = f"x must hold {fitted}, as in fit: only bytes are scaled to [0, 1]"
        raise InnerloopError(who, wrong, got=numbers_of(x), hint=hint)


def check_example_shape(got: tuple[int, ...], wanted: Shape | None, who: str) -> None:
    """Raise InnerloopError unless an example has the shape of the model's inputs."""
    if wanted is None:
        return
    if len(got) == len(wanted) and all(w in (None, g) for g, w in zip(got, wanted, strict=True)):
        return
    shown = f"({', '.join('any' if w is None else str(w) for w in wanted)}{',' if len(wanted) == 1 else ''})"
    raise InnerloopError(who, f"each example must have the shape {shown}", got=got, hint=_advice(got, wanted))


def _advice(got: tuple[int, ...], wanted: Shape) -> str:
    if len(got) == len(wanted) - 1 and wanted[-1] == 1:
        return "add the last axis: x[..., None]"
    if len(got) == len(wanted) - 1:
        return "Reshape your data: x[None] for a single example"
    if len(got) == len(wanted) and len(wanted) == 3 and got[-1] == wanted[-1]:
        return "resize the images"
    if len(wanted) == 3:
        return "images are [height, width, channels], with the channels that the model was trained on"
    return "give the features that the model was trained on"


def check_unit_range(x: np.ndarray, who: str) -> None:
    """Raise InnerloopError for images with values outside [0, 1]."""
    low, high = float(x.min()), float(x.max())
    if low < 0 or high > 1:
        hint = "pass bytes (uint8), or divide by 255"
        raise InnerloopError(who, "pixels must lie in 0..1", got=f"{low:g} to {high:g}", hint=hint)


def values(y: object, shape: tuple[int, ...], dtype: np.dtype, who: str) -> np.ndarray:
    """Convert values to `dtype` in the shape of the outputs.

    Args:
        y: one value per example; its shape may differ from `shape` only in axes of length one.
        shape: the shape of the model's outputs.
        dtype: float32 or float64.
        who: the function that was called, for error messages.

    Raises:
        InnerloopError: for values of another shape, or values that are not finite numbers.
    """
    targets = _numbers(y, "y", dtype, who).astype(dtype)
    check_length(len(targets) if targets.ndim else 0, shape[0], who)
    squeeze = lambda sides: tuple(side for side in sides[1:] if side != 1)
    if squeeze(targets.shape) != squeeze(shape):
        raise InnerloopError(who, f"y must have the shape {shape}", got=targets.shape)
    return targets.reshape(shape)


def check_length(got: int, examples: int, who: str) -> None:
    """Raise InnerloopError unless y holds one entry per example."""
    if got != examples:
        raise InnerloopError(
            who, "x and y differ in length", got=f"{counted(examples, 'example')} and {got} in y"
        )
