"""Freezing: accuracy on held-out tasks with the inner loop switched off for some layers.

Trained parameters stay as they are; only what the inner loop moves at test time is taken away, by tree path. If the
body's features are reused, nothing is lost until the head is frozen too.

Raghu et al. 2020, section 3.2, table 1, arXiv 1909.09157.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from jaxtyping import PRNGKeyArray

from innerloop.analysis.analyzed_model import Subject, Watch, check_tasks, interval, unwatched
from innerloop.engine.algorithm import Algorithm
from innerloop.engine.evaluate import evaluator, join
from innerloop.engine.types import Params

Frozen = tuple[str, ...]


def contiguous(names: Sequence[str]) -> list[Frozen]:
    """None, the first layer, the first two, ..., all but the head, all."""
    return [tuple(names[:count]) for count in range(len(names) + 1)]


def freezing(
    subject: Subject,
    sets: Sequence[Sequence[str]] | None = None,
    *,
    tasks: int = 1000,
    key: PRNGKeyArray,
    watch: Watch = unwatched,
) -> list[dict[str, Any]]:
    """One record for each set of frozen layers (None: the contiguous ones of the paper; any other sets will do).

    `{"frozen": [names], "accuracy": mean, "ci95": ..., "change": ..., "change_ci95": ...}`, with `loss` in place of
    `accuracy` for regression. All are measured on the same tasks, so `change`, the difference to the first record, is
    paired: its interval is far smaller than those of the two means. Raises InnerloopError for unknown layers.
    """
    check_tasks(tasks)
    sets = contiguous(subject.layers.names) if sets is None else [tuple(names) for names in sets]
    variants = [subject.without(tuple(names)) for names in sets]
    known: dict[frozenset[str], np.ndarray] = {}
    metric, total = subject.metric, tasks * len({subject.moving(variant) for variant in variants})
    for variant in variants:
        moving = subject.moving(variant)
        if moving not in known:  # ANIL's inner loop is the same whichever body layers are frozen
            told = later(watch, tasks * len(known), total)
            known[moving] = scorer(subject, variant, metric, tasks)(subject.params, key, told)
    values = [known[subject.moving(variant)] for variant in variants]
    return [record(names, metric, v, values[0]) for names, v in zip(sets, values, strict=True)]


def later(watch: Watch, before: int, total: int) -> Watch:
    """A watch for one of several measurements, `before` tasks into all of them."""
    return lambda done, own: watch(before + done, total)


def scorer(
    subject: Subject, algorithm: Algorithm, metric: str, tasks: int
) -> Callable[[Params, PRNGKeyArray, Watch], np.ndarray]:
    """`run(params, key, watch)`: the score of every task after the last inner step, `[tasks]`. Compiled once."""
    run = evaluator(
        algorithm,
        subject.tasks,
        subject.score,
        num_tasks=tasks,
        record=(algorithm.inner.steps,),
        batch_size=min(tasks, 100),
        chunk=subject.chunk,
    )

    def scores(params: Params, key: PRNGKeyArray, watch: Watch) -> np.ndarray:
        curves = []
        for curve in run(params, key):
            curves.append(curve)
            watch(sum(len(c.scores[metric]) for c in curves), tasks)
        return join(curves).scores[metric][:, 0]

    return scores


def record(names: Sequence[str], metric: str, values: np.ndarray, first: np.ndarray) -> dict[str, Any]:
    """One line of the table."""
    mean, ci95 = interval(values)
    change, change_ci95 = interval(values - first)
    line = {"frozen": list(names), metric: mean, "ci95": ci95}
    return {**line, "change": change, "change_ci95": change_ci95}
