"""How alike two representations of the same inputs are, layer by layer: before and after adaptation, and of two models.

Every measure in [0, 1] (debiased CKA may fall below 0), averaged over tasks. `chance` tells what linear CKA and CCA
give when the points of one side are shuffled, so that nothing but their number and the layers' widths is left: a
layer whose similarity is near chance has nothing in common with what it was.

Raghu et al. 2020, section 3.3, figure 2 (before and after) and table 3 (two models). The activations are those of a
task's queries, taken as one batch; the paper's variant of CCA and its numbers of tasks and points are in an appendix
that this was written without.
"""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jaxtyping import Array, PRNGKeyArray

from innerloop.analysis.activations import Layout, as_points
from innerloop.analysis.analyzed_model import Subject, Watch, check_tasks, interval, unwatched
from innerloop.analysis.cca import correlate, decomposed, default_tolerance, mean, weighted
from innerloop.analysis.cka import linear_cka, rbf_cka
from innerloop.engine.evaluate import over_tasks
from innerloop.engine.types import Params, Task
from innerloop.errors import InnerloopError

Compare = Callable[[Params, Task], tuple[dict[str, Array], dict[str, Array]]]
"""Two sets of activations of one task, layer by layer, at the same points."""

MOST_POINTS = 1000
"""Points of a layer that are compared: enough for hundreds of channels, and kernel matrices stay small."""

MOST_IN_A_KERNEL = 300
"""Points of RBF CKA, whose cost grows with their square."""

MEASURES = ("cca", "svcca", "pwcca", "cka", "cka_debiased", "cka_rbf")
"""Every measure by its name in records."""


def before_and_after(
    subject: Subject,
    *,
    tasks: int = 100,
    key: PRNGKeyArray,
    layout: Layout = "positions",
    watch: Watch = unwatched,
) -> list[dict[str, Any]]:
    """Similarity of each layer before and after the inner loop.

    One record a layer: `{"layer", "head": bool, "points", "neurons", "cca": {"mean", "ci95"}, "svcca": ..., "pwcca":
    ..., "cka": ..., "cka_debiased": ..., "cka_rbf": ..., "chance": {"cca": ..., "cka": ...}}`.
    """

    return comparer(subject, adapting(subject, layout), tasks)(subject.params, key, watch)


def adapting(subject: Subject, layout: Layout) -> Compare:
    """Activations of one task before and after the inner loop."""

    def one(params: Params, task: Task) -> tuple[Any, Any]:
        adapted = subject.algorithm.adapt(params, task.support)
        return both(subject, subject.theta(params), subject, adapted, task, layout)

    return one


def across(
    subject: Subject,
    other: Subject,
    *,
    tasks: int = 100,
    key: PRNGKeyArray,
    layout: Layout = "positions",
    adapted: bool = False,
    watch: Watch = unwatched,
) -> list[dict[str, Any]]:
    """Similarity of each layer of two models on the first one's tasks, as records of `before_and_after`.

    adapted: after each has run its own inner loop on the task (otherwise the initialisations). Raises InnerloopError
    unless both have the same layers.
    """
    if subject.layers.names != other.layers.names:
        got = f"{', '.join(subject.layers.names)} and {', '.join(other.layers.names)}"
        raise InnerloopError("similarity", "the models need the same layers", got=got)

    def one(params: Params, task: Task) -> tuple[Any, Any]:
        start = lambda own, params: (
            own.algorithm.adapt(params, task.support) if adapted else own.theta(params)
        )
        return both(subject, start(subject, params), other, start(other, other.params), task, layout)

    return comparer(subject, one, tasks)(subject.params, key, watch)


def both(
    a: Subject, params: Params, b: Subject, second: Params, task: Task, layout: Layout
) -> tuple[Any, Any]:
    """The activations of two sets of parameters on a task's queries, at the same points."""
    inputs = task.query.inputs
    pick = lambda found: {name: some(as_points(x, layout)) for name, x in found.items()}
    return pick(a.layers.activations(params, inputs)), pick(b.layers.activations(second, inputs))


def some(points: Array) -> Array:
    """`MOST_POINTS` rows, always the same ones, drawn at random: places beside one another are alike."""
    if len(points) <= MOST_POINTS:
        return points
    rows = np.random.default_rng(0).choice(len(points), MOST_POINTS, replace=False)
    return points[np.sort(rows)]


def comparer(
    subject: Subject, one: Compare, tasks: int
) -> Callable[[Params, PRNGKeyArray, Watch], list[dict[str, Any]]]:
    """`run(params, key, watch)`: all measures on all layers, averaged over tasks. Compiled once."""
    check_tasks(tasks)
    distribution = subject.close_up if subject.close_up is not None else subject.tasks
    activations = over_tasks(
        one, distribution, num_tasks=tasks, batch_size=min(tasks, 4 * len(jax.devices()))
    )
    names = subject.layers.names

    def run(params: Params, key: PRNGKeyArray, watch: Watch) -> list[dict[str, Any]]:
        found: dict[str, list[dict[str, float]]] = {name: [] for name in names}
        shapes: dict[str, tuple[int, int]] = {}
        for before, after in activations(params, key):
            for i in range(len(before[names[0]])):
                for name, values in found.items():
                    shapes[name] = before[name][i].shape
                    values.append(measured(before[name][i], after[name][i]))
                watch(len(found[names[0]]), tasks)
        return [line(name, name == names[-1], shapes[name], found[name]) for name in names]

    return run


def line(name: str, head: bool, shape: tuple[int, int], values: list[dict[str, float]]) -> dict[str, Any]:
    """One layer's record."""
    return {"layer": name, "head": head, "points": shape[0], "neurons": shape[1]} | averaged(values)


def measured(x: np.ndarray, y: np.ndarray) -> dict[str, float]:
    """Every measure of one layer on one task. Identical activations are alike by definition, also dead ones."""
    tolerance = default_tolerance(x, y, np.float64)
    x, y = x.astype(np.float64), y.astype(np.float64)
    shuffle = np.random.default_rng(1).permutation(len(y))
    before, after = decomposed(x), decomposed(y)
    by_chance = after._replace(left=after.left[shuffle])
    chance = {
        "chance_cca": mean(correlate(before, by_chance, tolerance).rho),
        "chance_cka": linear_cka(x, y[shuffle]),
    }
    if np.array_equal(x, y):
        return dict.fromkeys(MEASURES, 1.0) | chance
    found = correlate(before, after, tolerance)
    few = slice(None, None, -(-len(x) // MOST_IN_A_KERNEL))
    return {
        "cca": mean(found.rho),
        "svcca": mean(correlate(before, after, tolerance, 0.99).rho),
        "pwcca": weighted(found, before.centred),
        "cka": linear_cka(x, y),
        "cka_debiased": linear_cka(x, y, debiased=True),
        "cka_rbf": rbf_cka(x[few], y[few]),
    } | chance


def averaged(values: list[dict[str, float]]) -> dict[str, Any]:
    """Mean and interval of each measure over tasks; tasks where it is not defined are left out."""
    found: dict[str, Any] = {}
    for name in values[0]:
        column = np.array([v[name] for v in values])
        column = column[np.isfinite(column)]
        mean, ci95 = interval(column) if len(column) > 1 else (None, None)
        found[name] = {"mean": mean, "ci95": ci95}
    chance = {name: found.pop(f"chance_{name}") for name in ("cca", "cka")}
    return {**found, "chance": chance}
