"""All methods on the same tasks."""

import time
from dataclasses import dataclass
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int, PyTree

import innerloop as il
from innerloop.engine.intervals import half_width

from .episodes import Episodes, Hidden, embeddings, hidden
from .methods import Model, classifier, logistic_regression, nearest_mean, scores
from .minilm import Block, MiniLM


@dataclass(frozen=True)
class Settings:
    """What decides a comparison, beside texts and model."""

    ways: int = 5
    queries: int = 5
    blocks: int = 1
    rank: int = 8
    scale: float = 4.0
    rate: float = 0.1
    steps: int = 3
    updates: int = 150
    meta_batch: int = 4
    outer_rate: float = 1e-3
    tasks: int = 4000
    lora_tasks: int = 600
    strengths: tuple[float, ...] = (0.1, 1.0, 10.0, 100.0)


class Part(NamedTuple):
    """The texts of a split."""

    hidden: Hidden
    embeddings: Float[Array, "labels texts width"]
    counts: Int[Array, " labels"]

    def episodes(self, inputs: PyTree, shots: int, s: Settings) -> Episodes:
        return Episodes(inputs, self.counts, s.ways, shots, s.queries)


def part(model: MiniLM, tokens: list[Int[np.ndarray, "texts tokens"]], s: Settings) -> Part:
    """Compute what is frozen of all texts; `tokens` has an array for every label."""
    counts = [len(rows) for rows in tokens]
    padded = np.ones((len(tokens), max(counts), tokens[0].shape[1]), np.int32)
    for label, rows in enumerate(tokens):
        padded[label, : len(rows)] = rows
    below = hidden(model, len(model.blocks) - s.blocks, padded)
    return Part(below, embeddings(model.blocks[-s.blocks :], below), jnp.asarray(counts))


def right(found: Array, task: il.Task) -> Array:
    """The fraction of queries whose highest score is that of their label."""
    return jnp.mean(jnp.argmax(found, axis=1) == task.query.targets)


def train(algorithm: il.Algorithm, model: Model, tasks: Episodes, s: Settings) -> tuple[PyTree, float]:
    """Learn adapters and head on the training labels; also seconds an update."""
    optimizer = optax.adam(optax.cosine_decay_schedule(s.outer_rate, s.updates))
    loop = il.OuterLoop(algorithm, optimizer, tasks, meta_batch=s.meta_batch, chunk=1)
    state, block, seconds = loop.init(model.learnt, jax.random.key(1)), -(-s.updates // 10), 0.0
    for _ in range(10):
        began = time.perf_counter()
        state, info = loop.run(state, block)
        seconds = (time.perf_counter() - began) / block
        loss = float(info.outer_loss.mean())
        print(f"    update {int(state.step)}: loss {loss:.3f}, {seconds:.2f} s an update", flush=True)
    return state.params, seconds


def baselines(task: il.Task, which: int, strength: float, ways: int) -> dict[str, Array]:
    """Nearest mean and logistic regression, on embedding number `which` of the inputs."""
    support = task.support._replace(inputs=task.support.inputs[which])
    queries = task.query.inputs[which]
    nearest = jnp.mean(nearest_mean(support, queries, ways) == task.query.targets)
    return {
        "nearest mean": nearest,
        "logistic regression": right(logistic_regression(support, queries, ways, strength), task),
    }


def best_strength(validation: Part, shots: int, s: Settings) -> float:
    """The penalty with the highest accuracy on tasks of the validation labels."""
    found = {}
    for strength in s.strengths:
        score = lambda _, task, c=strength: baselines(task, 0, c, s.ways)
        tasks = validation.episodes((validation.embeddings,), shots, s)
        found[strength] = accuracies(tasks, score, min(s.tasks, 500), s)["logistic regression"].mean()
    return max(s.strengths, key=lambda c: found[c])


def accuracies(tasks: Episodes, score, count: int, s: Settings, head: eqx.nn.Linear | None = None) -> dict:
    """The scores of `count` tasks, `[tasks]` each, after the head alone has been adapted to the first embedding."""
    width = jax.tree.leaves(tasks.inputs)[0].shape[-1]
    head = eqx.nn.Linear(width, s.ways, key=jax.random.key(0)) if head is None else head
    loss = il.cross_entropy(lambda head, inputs: jax.vmap(lambda x: scores(head, x))(inputs[0]))
    algorithm = il.maml(loss, il.InnerLoop(optax.sgd(s.rate), s.steps))
    key = jax.random.key(2)
    curve = il.evaluate(algorithm, head, tasks, score, key=key, num_tasks=count, record=(s.steps,), chunk=50)
    return {name: values[:, 0] for name, values in curve.scores.items()}


def compare(upper: list[Block], train_part: Part, validation: Part, test: Part, shots: int, s: Settings) -> dict:
    """The accuracy of every method on every task, `[tasks]`, and how long an update took."""
    model = classifier(upper, s.ways, s.rank, s.scale, jax.random.key(0))
    inner, tasks = il.InnerLoop(optax.sgd(s.rate), s.steps), train_part.episodes(train_part.hidden, shots, s)
    strength = best_strength(validation, shots, s)
    print(f"  {shots} shots: C = {strength:g}\n  ANIL", flush=True)
    anil, anil_seconds = train(il.anil(model.loss(), inner, head="head"), model, tasks, s)
    trained = model.whole(anil)

    def frozen(head: PyTree, task: il.Task) -> dict[str, Array]:
        own = {f"{name}, ANIL's embeddings": x for name, x in baselines(task, 0, strength, s.ways).items()}
        anil = right(jax.vmap(lambda x: scores(head, x))(task.query.inputs[0]), task)
        return {"ANIL": anil} | own | baselines(task, 1, strength, s.ways)

    inputs = (embeddings(trained.blocks, test.hidden), test.embeddings)
    found = accuracies(test.episodes(inputs, shots, s), frozen, s.tasks, s, trained.head)

    print("  LoRA-MAML", flush=True)
    algorithm = il.maml(model.loss(), inner)
    learnt, lora_seconds = train(algorithm, model, tasks, s)
    score = lambda learnt, task: {"right": right(jax.vmap(model.whole(learnt))(task.query.inputs), task)}
    episodes = test.episodes(test.hidden, shots, s)
    key, count = jax.random.key(2), s.lora_tasks
    curve = il.evaluate(algorithm, learnt, episodes, score, key=key, num_tasks=count, record=(0, s.steps))
    found["LoRA-MAML"] = curve.scores["right"][:, -1]
    return {
        "C": strength,
        "seconds_an_update": {"ANIL": anil_seconds, "LoRA-MAML": lora_seconds},
        "methods": summary(found, s),
    }


def summary(found: dict[str, np.ndarray], s: Settings) -> dict[str, dict]:
    """Means with 95 % half widths; differences to logistic regression are taken task by task."""
    against = found["logistic regression"].astype(np.float64)
    interval = lambda x: [float(x.mean()), float(half_width(x))]
    return {
        name: {
            "tasks": len(x),
            "accuracy": interval(x.astype(np.float64)),
            "minus_logistic_regression": interval(x[: s.lora_tasks] - against[: s.lora_tasks]),
        }
        for name, x in found.items()
    }
