"""Activations as matrices of points by neurons, the input of every similarity measure.

A convolutional layer returns `[images, height, width, channels]`. With the layout `positions`, every position of every
image is a data point and every channel a neuron (Raghu, Gilmer, Yosinski and Sohl-Dickstein 2017, section 4.2: for
layers of equal size, whose positions correspond). With `flatten`, an image is a point and every channel at every
position a neuron; neurons then soon outnumber points, and CCA becomes uninformative (`innerloop.analysis.cca`).
"""

from typing import Literal, TypeVar, get_args

import jax.numpy as jnp
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
        InnerloopError: if the layout is unknown, or the activations have no neurons or no axis of neurons.
    """
    if activations.ndim < 2 or 0 in activations.shape[1:]:
        got = f"shape {tuple(activations.shape)}"
        raise InnerloopError("activations", "must be [examples, ..., neurons]", got=got)
    check_choice("activations", "layout", layout, get_args(Layout))
    if layout == "positions":
        return activations.reshape(-1, activations.shape[-1])
    return activations.reshape(activations.shape[0], -1)


def pair(x: Either, y: Either, who: str, dtype: DTypeLike = np.float64) -> tuple[np.ndarray, np.ndarray]:
    """Two sets of activations on the same points as uncentred `[points, neurons]` arrays of `dtype`, scaled to 1.

    Args:
        x: activations, `[points, ..., neurons]`.
        y: activations on the same points.
        who: name of the measure, for error messages.
        dtype: dtype of the result, float32 or float64.

    Raises:
        InnerloopError: unless both have the same number of points, at least three, and finite real values.
    """
    check_choice(who, "dtype", dtype, (np.dtype(np.float32), np.dtype(np.float64)))
    a, b = (_as_floats(z, who) for z in (x, y))
    if len(a) != len(b):
        got = f"{len(a)} and {len(b)}"
        raise InnerloopError(
            who, "both sides need the same number of points", got=got, hint="pass the same inputs to both"
        )
    if len(a) < 3:
        raise InnerloopError(who, "needs at least three points", got=len(a))
    if not (np.isfinite(a).all() and np.isfinite(b).all()):
        raise InnerloopError(who, "activations must be finite", hint="lower the inner step size")
    return _scaled(a).astype(dtype), _scaled(b).astype(dtype)


def _as_floats(activations: Either, who: str) -> np.ndarray:
    """Activations as points and neurons in float64. Raises InnerloopError unless they are real numbers."""
    found = np.asarray(activations)
    if found.dtype.kind not in "biu" and not jnp.issubdtype(found.dtype, jnp.floating):
        raise InnerloopError(who, "activations must be real numbers", got=found.dtype)
    return as_points(found).astype(np.float64)


def centred(x: np.ndarray) -> np.ndarray:
    """Activations centred over the points, and scaled to 1.

    A constant neuron becomes exactly zero, without rounding error.
    """
    return _scaled(np.where(x.max(0) == x.min(0), 0.0, x - x.mean(0)).astype(x.dtype))


def _scaled(x: np.ndarray) -> np.ndarray:
    """Scale by a power of two, which is exact, to largest values near 1: no product overflows or underflows.

    Every measure is invariant to scaling.
    """
    return np.ldexp(x, -np.frexp(np.abs(x).max(initial=0.0))[1])
