"""Examples that lie on the device, fetched by row number: what lets episodes be drawn inside `jit`."""

import math

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Int

WORD = 4
"""Bytes of the words in which bytes are stored: a quarter of the elements to fetch, so half the time."""


class Resident(eqx.Module):
    """Examples `[rows, ...]` on the device; unsigned bytes are packed into words and scaled to [0, 1] when fetched.

    Of an example's bytes the first quarter lies in the lowest bytes of its words, and so on: unpacked, neighbours are
    neighbours, and many are unpacked at once.
    """

    stored: Array
    shape: tuple[int, ...] = eqx.field(static=True)
    packed: bool = eqx.field(static=True)

    def __init__(self, examples: np.ndarray | Array):
        """Copy to the device, packed if they are bytes whose number in an example is a multiple of four."""
        self.shape = examples.shape[1:]
        size = math.prod(self.shape)
        self.packed = examples.dtype == np.uint8 and size % WORD == 0
        if self.packed:
            quarters = np.asarray(examples).reshape(len(examples), WORD, size // WORD)
            examples = np.ascontiguousarray(quarters.swapaxes(1, 2)).view("<u4")[..., 0]
        self.stored = jnp.asarray(examples)

    def __getitem__(self, rows: Int[Array, " examples"]) -> Array:
        """The examples of these rows, `[examples, ...]`. A row that is not there is not looked for."""
        found = self.stored.at[rows].get(mode="promise_in_bounds")
        if not self.packed:
            return unit_scale(found)
        # Kept apart from the unpacking, which would otherwise fetch every word once for each of its bytes.
        words = lax.optimization_barrier(found)[:, None]
        quarters = (words >> jnp.arange(0, 8 * WORD, 8, jnp.uint32)[:, None]) & 255
        return _scaled_bytes(quarters).reshape(len(rows), *self.shape)


def unit_scale(images: Array) -> Array:
    """Unsigned bytes to [0, 1]; anything else as it is."""
    return _scaled_bytes(images) if images.dtype == jnp.uint8 else images


def _scaled_bytes(numbers: Array) -> Array:
    """Whole numbers of 0..255 to [0, 1]."""
    return numbers.astype(jnp.float32) * (1 / 255)
