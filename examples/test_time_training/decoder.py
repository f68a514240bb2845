"""A byte-level decoder whose last blocks have a second, *prime* MLP, which is adapted while the text is read."""

from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int, PRNGKeyArray, PyTree

from .attention import Hidden, attend, attend_in_chunks, rms, rotary


@dataclass(frozen=True)
class Sizes:
    """The sizes of the model and the text."""

    width: int = 128
    heads: int = 4
    prefix: int = 3
    suffix: int = 1
    window: int = 128
    chunk: int = 128
    context: int = 1024

    @property
    def chunks(self) -> int:
        return self.context // self.chunk


class Window(NamedTuple):
    """What a chunk sees of the text before it: keys (normalised and rotated) and values of each suffix block."""

    keys: list[Float[Array, "window heads size"]]
    values: list[Float[Array, "window heads size"]]
    first: Int[Array, ""]


class Chunk(NamedTuple):
    """One item of the stream: the prefix's output for a chunk, and the byte that follows each of its bytes."""

    hidden: Hidden
    targets: Int[Array, " positions"]


def matrices(key: PRNGKeyArray, **shapes: tuple[int, int]) -> dict[str, Array]:
    keys = jax.random.split(key, len(shapes))
    drawn = {name: jax.random.normal(k, shapes[name]) for k, name in zip(keys, shapes, strict=True)}
    return {name: matrix / len(matrix) ** 0.5 for name, matrix in drawn.items()}


def block(key: PRNGKeyArray, s: Sizes) -> PyTree:
    """A block of attention and an MLP, with norms before and after both."""
    first, second = jax.random.split(key)
    norms = {"norms": jnp.ones((2, s.width // s.heads)), "around_attention": jnp.ones((2, s.width))}
    return (
        matrices(first, qkv=(s.width, 3 * s.width), out=(s.width, s.width)) | norms | {"mlp": mlp(second, s)}
    )


def mlp(key: PRNGKeyArray, s: Sizes) -> PyTree:
    """A gated MLP (SwiGLU) with norms before and after."""
    up, down = (s.width, 2 * s.width), (2 * s.width, s.width)
    return matrices(key, gate=up, up=up, down=down) | {"around": jnp.ones((2, s.width))}


def decoder(key: PRNGKeyArray, s: Sizes) -> PyTree:
    """The parameters; the output head is tied to the embedding."""
    keys = jax.random.split(key, 4)
    return {
        "embedding": jax.random.normal(keys[0], (256, s.width)) * 0.02,
        "prefix": [block(k, s) for k in jax.random.split(keys[1], s.prefix)],
        "suffix": [block(k, s) for k in jax.random.split(keys[2], s.suffix)],
        "prime": [mlp(k, s) for k in jax.random.split(keys[3], s.suffix)],
        "norm": jnp.ones(s.width),
    }


def feed(p: PyTree, h: Hidden) -> Hidden:
    """An MLP with its residual connection."""
    x = rms(p["around"][0], h)
    return h + rms(p["around"][1], (jax.nn.silu(x @ p["gate"]) * (x @ p["up"])) @ p["down"])


def query_key_value(p: PyTree, h: Hidden, first: Array | int, s: Sizes) -> tuple[Array, Array, Array]:
    """Queries, keys (both normalised by head, then rotated) and values, `[positions, heads, size]` each."""
    split = (rms(p["around_attention"][0], h) @ p["qkv"]).reshape(len(h), 3, s.heads, -1)
    place = lambda scale, x: rotary(rms(scale, x), first + jnp.arange(len(h)))
    return place(p["norms"][0], split[:, 0]), place(p["norms"][1], split[:, 1]), split[:, 2]


def after_attention(p: PyTree, h: Hidden, attended: Hidden) -> Hidden:
    """The residual connection around attention."""
    return h + rms(p["around_attention"][1], attended @ p["out"])


def prefix(params: PyTree, text: Int[Array, " positions"], s: Sizes) -> Hidden:
    """The first blocks, over the whole text; attention goes chunk by chunk, in parallel."""
    h = params["embedding"][text]
    for p in params["prefix"]:
        q, k, v = query_key_value(p, h, 0, s)
        h = feed(p["mlp"], after_attention(p, h, attend_in_chunks(q, k, v, s.chunk, s.window)))
    return h


def chunk_loss(s: Sizes, params: PyTree, chunk: Chunk, *, state: Window) -> tuple[Array, Window, Array]:
    """The suffix on one chunk: mean cross-entropy, the window for the next chunk, and the loss of every byte."""
    h, keys, values = chunk.hidden, [], []
    for p, prime, old_k, old_v in zip(
        params["suffix"], params["prime"], state.keys, state.values, strict=True
    ):
        q, k, v = query_key_value(p, h, state.first, s)
        k, v = jnp.concatenate([old_k, k]), jnp.concatenate([old_v, v])
        h = after_attention(p, h, attend(q, k, v, state.first, s.window))
        h = feed(p["mlp"], feed(prime, h))
        keys.append(k[-s.window :])
        values.append(v[-s.window :])
    scores = rms(params["norm"], h) @ params["embedding"].T
    losses = optax.softmax_cross_entropy_with_integer_labels(scores, chunk.targets)
    return losses.mean(), Window(keys, values, state.first + s.chunk), losses
