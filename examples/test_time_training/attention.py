"""Sliding-window attention with rotary positions: memory grows linearly with the text, not quadratically."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

Hidden = Float[Array, "positions width"]


def rms(scale: Array, x: Array) -> Array:
    """Root-mean-square normalisation."""
    return scale * x * jax.lax.rsqrt(jnp.mean(jnp.square(x), axis=-1, keepdims=True) + 1e-6)


def rotary(x: Float[Array, "positions heads size"], positions: Int[Array, " positions"]) -> Array:
    """Rotary position embedding, base 500 000."""
    half = x.shape[-1] // 2
    angles = positions[:, None] * 500_000.0 ** (-jnp.arange(half) / half)
    sine, cosine = jnp.sin(angles)[:, None], jnp.cos(angles)[:, None]
    a, b = x[..., :half], x[..., half:]
    return jnp.concatenate([a * cosine - b * sine, b * cosine + a * sine], axis=-1)


def attend(q: Array, k: Array, v: Array, first: Array, window: int) -> Array:
    """Attention from positions first, first + 1, ... to the last `window` positions up to and including each.

    Args:
        q: `[positions, heads, size]`, rotated to their positions.
        k: `[before + positions, heads, size]`, also rotated; the first `before` precede the queries.
        v: as `k`, not rotated.
        first: the position of the first query.
        window: how many positions a query sees.
    """
    here = first + jnp.arange(len(q))
    there = first + jnp.arange(len(k)) - (len(k) - len(q))
    seen = (there >= 0) & (there <= here[:, None]) & (there > here[:, None] - window)
    scores = jnp.einsum("qhs,khs->hqk", q, k) / q.shape[-1] ** 0.5
    return jnp.einsum("hqk,khs->qhs", jax.nn.softmax(jnp.where(seen, scores, -1e30)), v).reshape(len(q), -1)


def attend_in_chunks(q: Array, k: Array, v: Array, chunk: int, window: int) -> Hidden:
    """Attention over a whole text, from every chunk to itself and the window before it, in parallel."""
    before = jnp.zeros((window, *k.shape[1:]))
    k, v = jnp.concatenate([before, k]), jnp.concatenate([before, v])

    def one(start: Array) -> Hidden:
        part = lambda x, length: jax.lax.dynamic_slice_in_dim(x, start, length)
        return attend(part(q, chunk), part(k, window + chunk), part(v, window + chunk), start, window)

    return jax.vmap(one)(jnp.arange(0, len(q), chunk)).reshape(len(q), -1)
