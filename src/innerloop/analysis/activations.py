"""Activations as matrices of points by neurons, the input of every similarity measure.

A convolutional layer returns `[images, height, width, channels]`. With the layout `positions`, every position of every
image is a data point and every channel a neuron (Raghu, Gilmer, Yosinski and Sohl-Dickstein 2017, section 4.2: for
layers of equal size, whose positions correspond). With `flatten`, an image is a point and every channel at every
position a neuron; neurons then soon outnumber points, and CCA becomes uninformative (`innerloop.analysis.cca`).
"""

from typing import Literal, TypeVar, get_args

import numpy as np
from jaxtyping import Array, Float
from numpy.typing import DTypeLike

from innerloop.errors import InnerloopError, check_choice

Layout = Literal["positions", "flatten"]
Activations = TypeVar("Activations", np.ndarray, Array)
Either = np.ndarray | Array
Points = Float[np.ndarray, "points neurons"]


def as_points(activations: Activations, layout: Layout = "positions") -> Activations:
    """Reshape activations to points and neurons.

    Args:
        activations: `[examples, ..., neurons]`, a NumPy or JAX array.
        layout: whether spatial positions count as points or as neurons.

    Returns:
        `[points, neurons]`.

    Raises:
        InnerloopError: if the layout is unknown, or the activations have no neuron axis.
    """
    if activations.ndim < 2:
        got = f"shape {tuple(activations.shape)}"
        raise InnerloopError("activations", "must be [examples, ..., neurons]", got=got)
    check_choice("activations", "layout", layout, get_args(Layout))
    if layout == "positions":
        return activations.reshape(-1, activations.shape[-1])
    return activations.reshape(activations.shape[0], -1)


def pair(x: Either, y: Either, who: str, dtype: DTypeLike = np.float64) -> tuple[np.ndarray, np.ndarray]:
    """Two sets of activations on the same points as uncentred `[points, neurons]` arrays of `dtype`.

    Args:
        x: activations, `[points, ..., neurons]`.
        y: activations on the same points.
        who: name of the measure, for error messages.
        dtype: dtype of the result.

    Raises:
        InnerloopError: unless both have the same number of points, at least three, and finite values.
    """
    a, b = (as_points(np.asarray(z)).astype(dtype) for z in (x, y))
    if len(a) != len(b):
        got = f"{len(a)} and {len(b)}"
        raise InnerloopError(
            who, "both sides need the same number of points", got=got, hint="pass the same inputs to both"
        )
    if len(a) < 3:
        raise InnerloopError(who, "needs at least three points", got=len(a))
    if not (np.isfinite(a).all() and np.isfinite(b).all()):
        raise InnerloopError(who, "activations must be finite", hint="lower the inner step size")
    return a, b


def centred(x: np.ndarray) -> np.ndarray:
    """Activations centred over the points; a constant neuron becomes exactly zero, without rounding error."""
    return np.where(x.max(0) == x.min(0), 0.0, x - x.mean(0)).astype(x.dtype)
