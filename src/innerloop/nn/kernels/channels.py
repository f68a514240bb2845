"""Vectors over the last axis of arrays of higher rank, without NumPy's rank promotion, which users may forbid."""

from jaxtyping import Array, Float


def per_channel(vector: Float[Array, " channels"], like: Float[Array, "*axes channels"]) -> Array:
    """The vector with as many axes as `like`, all but the last of length one."""
    return vector.reshape(*[1] * (like.ndim - 1), -1)
