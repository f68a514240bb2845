"""All methods on the same test tasks."""

from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PyTree

import innerloop as il
from innerloop.engine.evaluation.intervals import half_width

from .episodes import Episodes, embeddings
from .methods import logistic_regression, nearest_mean, scores
from .training import Part, Settings, Trained, inner_loop


def right(found: Array, task: il.Task) -> Array:
    """The fraction of queries whose highest score is that of their label."""
    return jnp.mean(jnp.argmax(found, axis=1) == task.query.targets)


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
    if len(s.strengths) == 1:
        return s.strengths[0]
    found = {}
    for strength in s.strengths:
        score = lambda _, task, c=strength: baselines(task, 0, c, s.ways)
        tasks = validation.episodes((validation.embeddings,), shots, s)
        found[strength] = accuracies(tasks, score, min(s.tasks, 500), s)["logistic regression"].mean()
    return max(s.strengths, key=lambda c: found[c])


def accuracies(
    tasks: Episodes, score: Callable, count: int, s: Settings, head: eqx.nn.Linear | None = None
) -> dict:
    """The scores of `count` tasks, `[tasks]` each, after the head alone has been adapted to the first embedding."""
    width = jax.tree.leaves(tasks.inputs)[0].shape[-1]
    head = eqx.nn.Linear(width, s.ways, key=jax.random.key(0)) if head is None else head
    loss = il.cross_entropy(lambda head, inputs: jax.vmap(lambda x: scores(head, x))(inputs[0]))
    algorithm = il.maml(loss, inner_loop(s))
    key = jax.random.key(2)
    curve = il.evaluate(algorithm, head, tasks, score, key=key, num_tasks=count, record=(s.steps,), chunk=50)
    return {name: values[:, 0] for name, values in curve.scores.items()}


def compare(trained: Trained, validation: Part, test: Part, shots: int, s: Settings) -> dict:
    """The accuracy of every method on every task with this number of shots."""
    model, strength = trained.model, best_strength(validation, shots, s)
    anil = model.whole(trained.anil)

    def frozen(head: PyTree, task: il.Task) -> dict[str, Array]:
        own = {f"{name}, ANIL's embeddings": x for name, x in baselines(task, 0, strength, s.ways).items()}
        adapted = right(jax.vmap(lambda x: scores(head, x))(task.query.inputs[0]), task)
        return {"ANIL": adapted} | own | baselines(task, 1, strength, s.ways)

    inputs = (embeddings(anil.blocks, test.hidden), test.embeddings)
    found = accuracies(test.episodes(inputs, shots, s), frozen, s.tasks, s, anil.head)
    score = lambda learnt, task: {"right": right(jax.vmap(model.whole(learnt))(task.query.inputs), task)}
    tasks, key = test.episodes(test.hidden, shots, s), jax.random.key(2)
    algorithm = il.maml(model.loss(), inner_loop(s))
    curve = il.evaluate(algorithm, trained.lora, tasks, score, key=key, num_tasks=s.tasks, record=(s.steps,))
    found["LoRA-MAML"] = curve.scores["right"][:, 0]
    return {"C": strength, "methods": summary(found)}


def summary(found: dict[str, np.ndarray]) -> dict[str, dict]:
    """Means with 95 % half-widths; differences from logistic regression are taken task by task."""
    against = found["logistic regression"].astype(np.float64)
    interval = lambda x: [float(x.mean()), float(half_width(x))]
    return {
        name: {
            "tasks": len(x),
            "accuracy": interval(x.astype(np.float64)),
            "minus_logistic_regression": interval(x - against[: len(x)]),
        }
        for name, x in found.items()
    }
