"""LoRA-MAML and ANIL on the upper blocks of a frozen model, and two baselines on its embeddings."""

from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PyTree

import innerloop as il

from .episodes import Hidden
from .lora import with_lora
from .minilm import Block, contextual, pooled

ADAPTED = ("**/lora_*", "head")
"""What the inner loop of LoRA-MAML adapts, and what the outer loop learns."""


class Classifier(eqx.Module):
    """The upper blocks of a model, and a linear head on its embedding."""

    blocks: list[Block]
    head: eqx.nn.Linear

    def __call__(self, text: Hidden) -> Float[Array, " ways"]:
        return scores(self.head, pooled(contextual(self.blocks, text.tokens, text.real), text.real))


def scores(head: eqx.nn.Linear, embedding: Float[Array, " width"]) -> Float[Array, " ways"]:
    """The head on an embedding, whose entries are scaled to about 1."""
    return head(len(embedding) ** 0.5 * embedding)


class Model(NamedTuple):
    """A classifier in two parts: what is learned, and what is frozen."""

    learnt: PyTree
    frozen: PyTree
    static: PyTree

    def whole(self, learnt: PyTree) -> Classifier:
        return eqx.combine(learnt, self.frozen, self.static)

    def loss(self) -> il.BatchLoss:
        return il.cross_entropy(lambda learnt, texts: jax.vmap(self.whole(learnt))(texts))


def classifier(blocks: list[Block], ways: int, rank: int, scale: float, key: jax.Array) -> Model:
    """Adapters on the queries and values of attention, and a head of zeros."""
    blocks = with_lora(blocks, ("**/query_proj", "**/value_proj"), rank, scale, key)
    head = jax.tree.map(jnp.zeros_like, eqx.nn.Linear(blocks[0].norm.shape[0], ways, key=key))
    params, static = eqx.partition(Classifier(blocks, head), eqx.is_inexact_array)
    return Model(*il.partition(params, ADAPTED), static)


def nearest_mean(
    support: il.Batch, queries: Float[Array, "queries width"], ways: int
) -> Int[Array, " queries"]:
    """The label with the nearest mean embedding."""
    means = jax.nn.one_hot(support.targets, ways).T @ support.inputs / (len(support.targets) / ways)
    return jnp.argmin(jnp.sum(jnp.square(queries[:, None] - means), axis=-1), axis=1)


def logistic_regression(
    support: il.Batch, queries: Float[Array, "queries width"], ways: int, strength: float, steps: int = 400
) -> Float[Array, "queries ways"]:
    """The scores of softmax regression; `strength` is scikit-learn's C, and the bias is not penalised.

    Solved by Nesterov's method, for inputs of norm 1.
    """
    with_ones = lambda x: jnp.concatenate([x, jnp.ones((len(x), 1))], axis=1)
    inputs, targets = with_ones(support.inputs), jax.nn.one_hot(support.targets, ways)
    shrink = jnp.ones((inputs.shape[1], 1)).at[-1].set(0.0) / (strength * len(inputs))
    gradient = lambda w: inputs.T @ (jax.nn.softmax(inputs @ w) - targets) / len(inputs) + shrink * w

    # Rows have the squared norm 2, so the curvature of the loss is at most 1; the penalty's curvature is added.
    maximum, minimum = 1 + 1 / (strength * len(inputs)), 1 / (strength * len(inputs))
    momentum = (maximum**0.5 - minimum**0.5) / (maximum**0.5 + minimum**0.5)

    def step(carry: tuple[Array, Array], _: None) -> tuple[tuple[Array, Array], None]:
        old, ahead = carry
        new = ahead - gradient(ahead) / maximum
        return (new, new + momentum * (new - old)), None

    start = jnp.zeros((inputs.shape[1], ways))
    return with_ones(queries) @ jax.lax.scan(step, (start, start), None, steps)[0][0]
