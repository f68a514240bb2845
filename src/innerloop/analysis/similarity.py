"""Similarity of two representations of the same inputs, layer by layer: before and after adaptation, or of two models.

Every measure is in [0, 1] (debiased CKA may be negative) and averaged over tasks. `chance` is linear CKA and CCA with
the points of one side shuffled, so that only their number and the width of the layers matter: a layer whose similarity
is near chance has nothing in common with the other.

Raghu et al. 2020, section 3.3, figure 2 (before and after) and table 3 (two models), arXiv 1909.09157. The activations
are those of the queries of a task, as one batch. The paper's appendix, with its variant of CCA and its numbers of tasks
and points, was not consulted.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PRNGKeyArray

from innerloop.analysis.activations import Layout, as_points, pair
from innerloop.analysis.analyzed_model import AnalyzedModel, summary, task_count, with_loss_key
from innerloop.analysis.cca import (
    correlate,
    decompose,
    default_tolerance,
    mean_correlation,
    projection_weighted,
)
from innerloop.analysis.cka import linear_cka, rbf_cka
from innerloop.analysis.progress import OnProgress, no_progress
from innerloop.engine.evaluation.evaluate import over_tasks
from innerloop.engine.types import Params, Task
from innerloop.errors import InnerloopError, explained
from innerloop.io.untrusted import JsonObject

Pairs = dict[str, tuple[Array, Array]]
"""Two sets of activations of one task by layer, at the same points."""

Compare = Callable[[Params, Task, PRNGKeyArray], Pairs]
"""A function that returns the two sets of activations to compare; the key is that of random losses."""

MOST_POINTS = 1000
"""Most points compared per layer: enough for hundreds of channels, yet with small kernel matrices."""

MOST_IN_A_KERNEL = 300
"""Most points for RBF CKA, whose cost grows with their square."""

MEASURES = ("cca", "svcca", "pwcca", "cka", "cka_debiased", "cka_rbf")
"""The names of the measures in records."""


def similarity_before_and_after(
    model: AnalyzedModel,
    *,
    num_tasks: int = 100,
    key: PRNGKeyArray,
    layout: Layout = "positions",
    on_progress: OnProgress = no_progress,
) -> list[JsonObject]:
    """Similarity of each layer before and after the inner loop.

    Args:
        model: the model.
        num_tasks: the number of held-out tasks.
        key: determines the tasks.
        layout: whether positions of a convolutional layer count as points or as neurons.
        on_progress: progress callback.

    Returns:
        One record per layer: `{"layer", "head": bool, "points", "neurons", "cca": {"mean", "ci95"}, "svcca": ...,
        "pwcca": ..., "cka": ..., "cka_debiased": ..., "cka_rbf": ..., "chance": {"cca": ..., "cka": ...}}`.
    """
    return comparer(model, adaptation_pair(model, layout), num_tasks)(model.params, key, on_progress)


def adaptation_pair(model: AnalyzedModel, layout: Layout) -> Compare:
    """Activations of one task before and after the inner loop."""

    def one(params: Params, task: Task, key: PRNGKeyArray) -> Pairs:
        adapted = model.algorithm.adapt(params, task.support, key=key)
        return _activations_of_both(model, model.start(params, task), model, adapted, task, layout)

    return one


def similarity_across_models(
    model: AnalyzedModel,
    other: AnalyzedModel,
    *,
    num_tasks: int = 100,
    key: PRNGKeyArray,
    layout: Layout = "positions",
    adapted: bool = False,
    on_progress: OnProgress = no_progress,
) -> list[JsonObject]:
    """Similarity of each layer of two models on the first model's tasks.

    Records are as in `similarity_before_and_after`.

    Args:
        model: the first model.
        other: the second model.
        num_tasks: the number of held-out tasks.
        key: determines the tasks.
        layout: whether positions of a convolutional layer count as points or as neurons.
        adapted: whether to compare the adapted models instead of the initialisations.
        on_progress: progress callback.

    Raises:
        InnerloopError: if the models do not have the same layers, a layer has other points in the other model
            (under `positions`, another resolution), or one cannot read the inputs of these tasks.
    """
    if model.layers.names != other.layers.names:
        got = f"{', '.join(model.layers.names)} and {', '.join(other.layers.names)}"
        raise InnerloopError("similarity", "the models need the same layers", got=got)

    def one(params: Params, task: Task, key: PRNGKeyArray) -> Pairs:
        start = lambda own, params: (
            own.algorithm.adapt(params, task.support, key=key) if adapted else own.unadapted(params)
        )
        return _activations_of_both(
            model, start(model, params), other, start(other, other.params), task, layout
        )

    return comparer(model, one, num_tasks)(model.params, key, on_progress)


def _activations_of_both(
    a: AnalyzedModel, params: Params, b: AnalyzedModel, second: Params, task: Task, layout: Layout
) -> Pairs:
    """The activations of two sets of parameters on a task's queries, at the same points.

    Raises:
        InnerloopError: if the queries are padded, a model cannot read them, or a layer of the two has other points.
    """
    pairs = zip(_outputs(a, params, task).items(), _outputs(b, second, task).values(), strict=True)
    return {name: _same_points(name, x, y, layout) for (name, x), y in pairs}


def _outputs(model: AnalyzedModel, params: Params, task: Task) -> dict[str, Array]:
    """The output of each layer on a task's queries, in the order of the layers."""
    if getattr(task.query, "mask", None) is not None:
        wrong = "the queries have a mask, but the activations of all of them are compared"
        hint = "give `activation_tasks` without a mask, with the same number of queries in every task"
        raise InnerloopError("similarity", wrong, hint=hint)
    inputs, hint = task.query.inputs, "compare models for inputs of the same shape"
    got = jax.tree.map(jnp.shape, inputs)  # for example, images with another number of channels
    with explained("similarity", "a model cannot read the queries", got=got, hint=hint):
        found = model.layers.activations(params, inputs)
    return {name: found[name] for name in model.layers.names}


def _same_points(name: str, x: Array, y: Array, layout: Layout) -> tuple[Array, Array]:
    """One layer's outputs as points and neurons, at the same `MOST_POINTS` points or fewer."""
    axes = 1 if layout == "flatten" else -1
    if x.shape[:axes] != y.shape[:axes]:
        hint = "compare models of the same resolution, or in Python use layout='flatten'"
        got = f"outputs of shape {x.shape} and {y.shape}"
        raise InnerloopError(
            "similarity", f"layer {name} must have the same points in both", got=got, hint=hint
        )
    x, y = as_points(x, layout), as_points(y, layout)
    if len(x) <= MOST_POINTS:
        return x, y
    # Always the same ones; at random, since neighbouring positions are similar.
    rows = np.sort(np.random.default_rng(0).choice(len(x), MOST_POINTS, replace=False))
    return x[rows], y[rows]


def comparer(
    model: AnalyzedModel, one: Compare, num_tasks: int
) -> Callable[[Params, PRNGKeyArray, OnProgress], list[JsonObject]]:
    """`run(params, key, on_progress)`: all measures on all layers, averaged over tasks; compiled once."""
    distribution = model.tasks_for_activations
    num_tasks = task_count(distribution, num_tasks)
    activations = over_tasks(
        with_loss_key(one),
        distribution,
        num_tasks=num_tasks,
        batch_size=min(num_tasks, 4 * len(jax.devices())),
    )
    names = model.layers.names

    def run(params: Params, key: PRNGKeyArray, on_progress: OnProgress) -> list[JsonObject]:
        found: dict[str, list[dict[str, float]]] = {name: [] for name in names}
        shapes: dict[str, tuple[int, int]] = {}
        for pairs in activations(params, key):
            for i in range(len(pairs[names[0]][0])):
                for name in names:
                    x, y = (side[i] for side in pairs[name])
                    shapes[name] = x.shape
                    found[name].append(_measures_of(x, y))
                on_progress(len(found[names[0]]), num_tasks)
        return [
            {"layer": name, "head": name == names[-1], "points": shapes[name][0], "neurons": shapes[name][1]}
            | _averaged(found[name])
            for name in names
        ]

    return run


def _measures_of(x: np.ndarray, y: np.ndarray) -> dict[str, float]:
    """Every measure for one layer on one task. Identical activations have similarity 1, even if all are dead."""
    tolerance = default_tolerance(x, y, np.float64)
    x, y = pair(x, y, "similarity")
    shuffle = np.random.default_rng(1).permutation(len(y))
    before, after = decompose(x), decompose(y)
    by_chance = after._replace(left=after.left[shuffle])
    chance = {
        "chance_cca": mean_correlation(correlate(before, by_chance, tolerance).rho),
        "chance_cka": linear_cka(x, y[shuffle]),
    }
    if np.array_equal(x, y):
        return dict.fromkeys(MEASURES, 1.0) | chance
    found = correlate(before, after, tolerance)
    few = slice(None, None, -(-len(x) // MOST_IN_A_KERNEL))
    return {
        "cca": mean_correlation(found.rho),
        "svcca": mean_correlation(correlate(before, after, tolerance, 0.99).rho),
        "pwcca": projection_weighted(found, before.centred),
        "cka": linear_cka(x, y),
        "cka_debiased": linear_cka(x, y, debiased=True),
        "cka_rbf": rbf_cka(x[few], y[few]),
    } | chance


def _averaged(values: list[dict[str, float]]) -> JsonObject:
    """Mean and confidence interval of each measure over the tasks where it is defined."""
    found: JsonObject = {}
    for name in values[0]:
        column = np.array([v[name] for v in values])
        column = column[np.isfinite(column)]
        found[name] = summary(column) if len(column) > 1 else {"mean": None, "ci95": None}
    chance = {name: found.pop(f"chance_{name}") for name in ("cca", "cka")}
    return {**found, "chance": chance}
