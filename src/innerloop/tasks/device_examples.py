"""Examples stored on the device and fetched by row index, so that episodes can be drawn inside `jit`."""

import math

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Int

WORD = 4
"""Bytes per word. Bytes are packed into words: with a quarter of the elements, fetching takes half the time."""


class DeviceExamples(eqx.Module):
    """Examples `[rows, ...]` on the device; unsigned bytes are packed into words and scaled to [0, 1] when fetched.

    The first quarter of an example's bytes is stored in the lowest bytes of its words, and so on, so that neighbouring
    bytes are unpacked together.
    """

    stored: Array
    shape: tuple[int, ...] = eqx.field(static=True)
    packed: bool = eqx.field(static=True)

    def __init__(self, examples: np.ndarray | Array):
        """Copy to the device, packed if the examples are uint8 with a multiple of four values each."""
        self.shape = examples.shape[1:]
        size = math.prod(self.shape)
        self.packed = examples.dtype == np.uint8 and size % WORD == 0
        if self.packed:
            quarters = np.asarray(examples).reshape(len(examples), WORD, size // WORD)
            examples = np.ascontiguousarray(quarters.swapaxes(1, 2)).view("<u4")[..., 0]
        self.stored = jnp.asarray(examples)

    def __getitem__(self, rows: Int[Array, " examples"]) -> Array:
        """The examples of these rows, `[examples, ...]`. Row indices are not bounds-checked."""
        found = self.stored.at[rows].get(mode="promise_in_bounds")
        if not self.packed:
            return unit_scale(found)
        # The barrier keeps fetching and unpacking apart; otherwise every word would be fetched once per byte.
        words = lax.optimization_barrier(found)[:, None]
        quarters = (words >> jnp.arange(0, 8 * WORD, 8, jnp.uint32)[None, :, None]) & 255
        return _scaled_bytes(quarters).reshape(len(rows), *self.shape)


def unit_scale(images: Array) -> Array:
    """Scale unsigned bytes to [0, 1]; other dtypes are returned unchanged."""
    return _scaled_bytes(images) if images.dtype == jnp.uint8 else images


def _scaled_bytes(numbers: Array) -> Array:
    """Scale integers in 0..255 to [0, 1]."""
    return numbers.astype(jnp.float32) * (1 / 255)
