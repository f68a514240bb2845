"""Feature reuse early in training: freezing and similarity at snapshots of a run.

Raghu et al. 2020, section 3.3, figure 3, arXiv 1909.09157: from early on, freezing the body costs little, and the
representations of the body hardly change in the inner loop. Training saves the snapshots (`outer.snapshots`).
"""

from collections.abc import Mapping

from jaxtyping import PRNGKeyArray

from innerloop.analysis.analyzed_model import AnalyzedModel, task_count
from innerloop.analysis.freezing import paired_scores, scorer, shifted_progress
from innerloop.analysis.progress import OnProgress, no_progress
from innerloop.analysis.similarity import adaptation_pair, comparer
from innerloop.engine.types import Params
from innerloop.io.untrusted import JsonObject


def along_training(
    model: AnalyzedModel,
    snapshots: Mapping[int, Params],
    *,
    num_tasks: int = 300,
    num_close_tasks: int = 20,
    key: PRNGKeyArray,
    on_progress: OnProgress = no_progress,
) -> list[JsonObject]:
    """Freezing and similarity at snapshots.

    Args:
        model: the model.
        snapshots: meta-parameters by meta-step.
        num_tasks: number of held-out tasks for freezing.
        num_close_tasks: number of held-out tasks for similarity.
        key: determines the tasks.
        on_progress: progress callback.

    Returns:
        One record per snapshot: `{"meta_step", "freeze": [none, body], "similarity": [one record per layer]}`.
    """
    num_tasks = task_count(model.tasks, num_tasks)
    num_close_tasks = task_count(model.tasks_for_activations, num_close_tasks)
    sets, metric = [(), model.layers.body], model.metric
    runs = [scorer(model, model.with_frozen(names), metric, num_tasks) for names in sets]
    compare = comparer(model, adaptation_pair(model, "positions"), num_close_tasks)
    total, done = len(snapshots) * (2 * num_tasks + num_close_tasks), 0
    found = []
    for step, params in snapshots.items():
        values = []
        for run in runs:
            values.append(run(params, key, shifted_progress(on_progress, done, total)))
            done += num_tasks
        alike = compare(params, key, shifted_progress(on_progress, done, total))
        done += num_close_tasks
        lines = [
            {"frozen": list(names), **paired_scores(metric, v, values[0])}
            for names, v in zip(sets, values, strict=True)
        ]
        found.append({"meta_step": step, "freeze": lines, "similarity": alike})
    return found
