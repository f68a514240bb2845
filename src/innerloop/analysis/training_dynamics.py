"""Reuse early in training: freezing and similarity at snapshots along a run.

The paper's figure 3 (section 3.3): from early on, freezing the body costs nothing and the body's representations hardly
change in the inner loop. Training keeps the snapshots (`outer.snapshots`).
"""

from collections.abc import Mapping
from typing import Any

from jaxtyping import PRNGKeyArray

from innerloop.analysis.analyzed_model import Subject, Watch, unwatched
from innerloop.analysis.freezing import later, record, scorer
from innerloop.analysis.similarity import adapting, comparer
from innerloop.engine.types import Params


def along_training(
    subject: Subject,
    snapshots: Mapping[int, Params],
    *,
    tasks: int = 300,
    close_tasks: int = 20,
    key: PRNGKeyArray,
    watch: Watch = unwatched,
) -> list[dict[str, Any]]:
    """One record a snapshot: `{"meta_step", "freeze": [none, body], "similarity": [a record a layer]}`.

    tasks: for freezing; close_tasks: for similarity.
    """
    sets = [(), subject.layers.body]
    runs = [scorer(subject, subject.without(names), subject.metric, tasks) for names in sets]
    compare = comparer(subject, adapting(subject, "positions"), close_tasks)
    total, done = len(snapshots) * (2 * tasks + close_tasks), 0
    found = []
    for step, params in snapshots.items():
        values = []
        for run in runs:
            values.append(run(params, key, later(watch, done, total)))
            done += tasks
        alike = compare(params, key, later(watch, done, total))
        done += close_tasks
        lines = [record(names, subject.metric, v, values[0]) for names, v in zip(sets, values, strict=True)]
        found.append({"meta_step": step, "freeze": lines, "similarity": alike})
    return found
