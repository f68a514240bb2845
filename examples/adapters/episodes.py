"""Few-shot tasks from texts, for which the frozen part of the model has been computed once."""

from collections.abc import Callable
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, PyTree

import innerloop as il

from .minilm import Block, MiniLM, contextual, pooled


class Hidden(NamedTuple):
    """Texts as they enter the blocks with adapters; the leading axes are those of the texts."""

    tokens: Float[Array, "*texts tokens width"]
    real: Bool[Array, "*texts tokens"]


class Episodes(eqx.Module):
    """The distribution over tasks with `ways` labels; `inputs` holds the texts in any representation.

    A key gives the same texts for all kinds of inputs, so that methods are compared on the same tasks.
    """

    inputs: PyTree  # arrays, each [labels, texts, ...]
    counts: Int[Array, " labels"]
    ways: int = eqx.field(static=True)
    shots: int = eqx.field(static=True)
    queries: int = eqx.field(static=True)

    def sample(self, key: jax.Array) -> il.Task:
        of_labels, of_texts = jax.random.split(key)
        labels = jax.random.choice(of_labels, len(self.counts), (self.ways,), replace=False)
        maximum = jax.tree.leaves(self.inputs)[0].shape[1]
        there = jnp.arange(maximum) < self.counts[labels][:, None]
        order = jnp.where(there, jax.random.uniform(of_texts, there.shape), -1)
        rows = jax.lax.top_k(order, self.shots + self.queries)[1]

        def batch(rows: Int[Array, "ways each"]) -> il.Batch:
            fetch = lambda x: x[labels[:, None], rows].reshape(-1, *x.shape[2:])
            return il.Batch(
                jax.tree.map(fetch, self.inputs), jnp.repeat(jnp.arange(self.ways), rows.shape[1])
            )

        return il.Task(batch(rows[:, : self.shots]), batch(rows[:, self.shots :]))


def per_text(fn: Callable[[PyTree], PyTree], inputs: PyTree, chunk: int = 64) -> PyTree:
    """Apply `fn` to every text, a chunk at a time: leaves `[labels, texts, ...]` in and out."""
    shape = jax.tree.leaves(inputs)[0].shape[:2]
    flat = jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), inputs)
    found = jax.jit(lambda flat: jax.lax.map(fn, flat, batch_size=chunk))(flat)
    return jax.tree.map(lambda x: x.reshape(*shape, *x.shape[1:]), found)


def hidden(model: MiniLM, frozen_blocks: int, numbers: Int[np.ndarray, "labels texts tokens"]) -> Hidden:
    """The texts after the first blocks of the model."""

    def one(tokens: Int[Array, " tokens"]) -> Hidden:
        real = tokens != 0
        return Hidden(contextual(model.blocks[:frozen_blocks], model.start(tokens), real), real)

    return per_text(one, jnp.asarray(numbers))


def embeddings(blocks: list[Block], texts: Hidden) -> Float[Array, "labels texts width"]:
    """The embeddings of texts whose lower blocks have been computed."""
    return per_text(lambda text: pooled(contextual(blocks, text.tokens, text.real), text.real), texts)
