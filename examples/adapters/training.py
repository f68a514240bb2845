"""The frozen part of the model, computed once for all texts, and the training of ANIL and LoRA-MAML."""

import time
from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int, PyTree

import innerloop as il

from .episodes import Episodes, Hidden, embeddings, hidden
from .methods import Model, classifier
from .minilm import Block, MiniLM


@dataclass(frozen=True)
class Settings:
    """The settings of a comparison, besides texts and model."""

    ways: int = 5
    queries: int = 5
    blocks: int = 1
    rank: int = 8
    scale: float = 4.0
    rate: float = 0.1
    steps: int = 3
    updates: int = 40
    train_shots: int = 1
    meta_batch: int = 4
    outer_rate: float = 1e-3
    tasks: int = 2000
    strengths: tuple[float, ...] = (1.0,)


class Part(NamedTuple):
    """The texts of a split."""

    hidden: Hidden
    embeddings: Float[Array, "labels texts width"]
    counts: Int[Array, " labels"]

    def episodes(self, inputs: PyTree, shots: int, s: Settings) -> Episodes:
        return Episodes(inputs, self.counts, s.ways, shots, s.queries)


def parts(model: MiniLM, tokens: list[list[Int[np.ndarray, "texts tokens"]]], s: Settings) -> list[Part]:
    """Run the frozen part of the model on all texts; `tokens` has an array for every label of every split."""
    every = [rows for split in tokens for rows in split]
    counts, first = jnp.array([len(rows) for rows in every]), 0
    padded = np.ones((len(every), int(counts.max()), every[0].shape[1]), np.int32)
    for label, rows in enumerate(every):
        padded[label, : len(rows)] = rows
    below = hidden(model, len(model.blocks) - s.blocks, padded)
    whole, found = Part(below, embeddings(model.blocks[-s.blocks :], below), counts), []
    for split in tokens:
        own = slice(first, first + len(split))
        found.append(jax.tree.map(lambda x, own=own: x[own], whole))
        first += len(split)
    return found


def inner_loop(s: Settings) -> il.InnerLoop:
    return il.InnerLoop(optax.sgd(s.rate), s.steps)


def train(algorithm: il.Algorithm, model: Model, tasks: Episodes, s: Settings) -> tuple[PyTree, float]:
    """Learn adapters and head on the training labels; also return the seconds per update."""
    optimizer = optax.adam(optax.cosine_decay_schedule(s.outer_rate, s.updates))
    loop = il.OuterLoop(algorithm, optimizer, tasks, meta_batch=s.meta_batch, chunk=1)
    state, block, seconds = loop.init(model.learnt, jax.random.key(1)), -(-s.updates // 10), 0.0
    for done in range(0, s.updates, block):
        began, count = time.perf_counter(), min(block, s.updates - done)
        state, info = loop.run(state, count)
        seconds = (time.perf_counter() - began) / count if count == block else seconds  # without compiling
        loss = float(info.outer_loss.mean())
        print(f"    update {int(state.step)}: loss {loss:.3f}, {seconds:.2f} s per update", flush=True)
    return state.params, seconds


class Trained(NamedTuple):
    """The classifier, and the parameters that ANIL and LoRA-MAML learned."""

    model: Model
    anil: PyTree
    lora: PyTree
    seconds_an_update: dict[str, float]


def train_both(upper: list[Block], tasks: Episodes, s: Settings) -> Trained:
    """Train ANIL and LoRA-MAML on the same tasks."""
    model, inner = classifier(upper, s.ways, s.rank, s.scale, jax.random.key(0)), inner_loop(s)
    print("  ANIL", flush=True)
    anil, first = train(il.anil(model.loss(), inner, head="head"), model, tasks, s)
    print("  LoRA-MAML", flush=True)
    lora, second = train(il.maml(model.loss(), inner), model, tasks, s)
    return Trained(model, anil, lora, {"ANIL": first, "LoRA-MAML": second})
