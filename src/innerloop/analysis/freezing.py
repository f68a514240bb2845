"""Freezing: accuracy on held-out tasks with the inner loop turned off for some layers.

The trained parameters are kept; only the inner loop at test time skips the frozen layers. If the body's features are
reused, accuracy does not drop until the head is frozen too.

Raghu et al. 2020, section 3.2, table 1, arXiv 1909.09157.
"""

from collections.abc import Callable, Sequence

import numpy as np
from jaxtyping import PRNGKeyArray

from innerloop.analysis.analyzed_model import AnalyzedModel, interval, task_count
from innerloop.analysis.progress import OnProgress, no_progress
from innerloop.engine.algorithm import Algorithm
from innerloop.engine.evaluation.curve import join
from innerloop.engine.evaluation.evaluate import evaluator
from innerloop.engine.types import Params
from innerloop.io.untrusted import JsonObject

Frozen = tuple[str, ...]


def contiguous(names: Sequence[str]) -> list[Frozen]:
    """The sets used in the paper: no layer, the first layer, the first two, ..., all but the head, all."""
    return [tuple(names[:count]) for count in range(len(names) + 1)]


def freezing(
    model: AnalyzedModel,
    sets: Sequence[Sequence[str]] | None = None,
    *,
    num_tasks: int = 1000,
    key: PRNGKeyArray,
    on_progress: OnProgress = no_progress,
) -> list[JsonObject]:
    """Scores on held-out tasks with some layers frozen in the inner loop.

    All sets are measured on the same tasks, so differences from the first set are paired: their intervals are far
    smaller than those of the two means.

    Args:
        model: the model.
        sets: sets of layers to freeze (None: `contiguous`).
        num_tasks: the number of held-out tasks.
        key: determines the tasks.
        on_progress: progress callback.

    Returns:
        One record per set: `{"frozen": [names], "accuracy": mean, "ci95": ..., "change": ..., "change_ci95": ...}`,
        with `loss` in place of `accuracy` for regression.

    Raises:
        InnerloopError: if a layer is unknown, or there are fewer than two tasks.
    """
    num_tasks, metric = task_count(model.tasks, num_tasks), model.metric
    sets = contiguous(model.layers.names) if sets is None else [tuple(names) for names in sets]
    variants = [model.with_frozen(names) for names in sets]
    adapted = [model.adapted_paths(variant) for variant in variants]
    # ANIL's inner loop is the same whichever body layers are frozen: measure it once.
    distinct = dict(zip(adapted, variants, strict=True))
    scores: dict[frozenset[str], np.ndarray] = {}
    for i, (paths, variant) in enumerate(distinct.items()):
        shifted = shifted_progress(on_progress, i * num_tasks, num_tasks * len(distinct))
        scores[paths] = scorer(model, variant, metric, num_tasks)(model.params, key, shifted)
    return [
        {"frozen": list(names), **paired_scores(metric, scores[paths], scores[adapted[0]])}
        for names, paths in zip(sets, adapted, strict=True)
    ]


def shifted_progress(on_progress: OnProgress, before: int, total: int) -> OnProgress:
    """The callback for one of several measurements, offset by the `before` tasks already done."""
    return lambda done, own: on_progress(before + done, total)


def scorer(
    model: AnalyzedModel, algorithm: Algorithm, metric: str, num_tasks: int
) -> Callable[[Params, PRNGKeyArray, OnProgress], np.ndarray]:
    """`run(params, key, on_progress)`: each task's score after the last inner step, `[tasks]`; compiled once."""
    run = evaluator(
        algorithm,
        model.tasks,
        model.score,
        num_tasks=num_tasks,
        record=(algorithm.inner.steps,),
        batch_size=min(num_tasks, 100),
        chunk=model.chunk,
    )

    def scores(params: Params, key: PRNGKeyArray, on_progress: OnProgress) -> np.ndarray:
        curves = []
        for curve in run(params, key):
            curves.append(curve)
            on_progress(sum(len(c.scores[metric]) for c in curves), num_tasks)
        return join(curves).scores[metric][:, 0]

    return scores


def paired_scores(metric: str, values: np.ndarray, first: np.ndarray) -> JsonObject:
    """The mean of scores `[tasks]`, and their `change` from the scores `first` of the same tasks."""
    mean, ci95 = interval(values)
    change, change_ci95 = interval(values - first)
    return {metric: mean, "ci95": ci95, "change": change, "change_ci95": change_ci95}
