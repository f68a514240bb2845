"""The verdict on a group of runs, in sentences with numbers."""

import math
from pathlib import Path

from innerloop.io.text import broken, counted, diverged, grouped, with_interval
from innerloop.report.comparison import Difference, Result, compare
from innerloop.report.measurements import Group
from innerloop.training.measurement import ReturnMeasurement


def verdict(group: Group) -> str:
    """How the runs compare with what their training started from, and with each other."""
    best, *others = group.results[: len(group.runs)]
    return " ".join([_reached(best), _against_start(best, group.baseline_of(best)), *_ranking(best, others)])


def _reached(best: Result) -> str:
    """What the best run reaches."""
    found, shots = best.measurement, best.trained.config.data.shots
    steps = counted(found.inner_steps, "inner step")
    value = _value(best)
    if best.score == "accuracy":
        what = f"classifies {value} of the queries of new classes correctly"
        return f"After {steps} on {counted(shots, 'example')} of each class, {best.label} {what}."
    before = best.at(0)
    if best.score == "return":
        was = f", from {before[0]:.1f} before adapting" if before else ""
        updates = counted(found.inner_steps, "update")
        return f"After {updates} in a new task, {best.label} reaches a return of {value}{was}."
    was = f", from {before[0]:.2f} before adapting" if before else ""
    table = best.trained.config.data.spec.needs_file
    new, rest = ("row of a new group", "the other rows") if table else ("point of a new wave", "it")
    known = ("at most " if table else "") + counted(shots, new, new.replace(" of", "s of"))
    return f"After {steps} on {known}, {best.label} predicts {rest} with a squared error of {value}{was}."


def _value(result: Result) -> str:
    """The score after the last step; for several seeds, with their number."""
    value = with_interval(result.value, result.ci95, result.score)
    over = f" (mean and standard deviation over {len(result.seeds)} seeds)" if result.seeds else ""
    return value + over


def _against_start(best: Result, baseline: Result | None) -> str:
    """How far the same inner loop gets from where training started."""
    if baseline is None:
        return ""
    reached = with_interval(baseline.value, baseline.ci95, best.score)
    gain = compare(best, baseline)
    start = best.trained.config.model.start
    if start and baseline.trained.source == start:
        what = f"Training started from {Path(start).name}, which reaches {reached} after the same adaptation"
    else:
        what = f"The same network untrained reaches {reached} after the same adaptation"
    if gain.sign > 0:
        return f"{what}: training gained {_gap(gain, best.score)}."
    if math.isnan(best.value) or math.isnan(baseline.value):
        return f"{what}."
    return f"{what}, so this measurement shows no gain from training."


def _ranking(best: Result, others: list[Result]) -> list[str]:
    """How the next best compares."""
    if not others:
        return []
    second = others[0]
    gain = compare(best, second)
    if gain.sign > 0:
        return [f"Next comes {second.label} with {_value(second)}: worse by {_gap(gain, best.score)}."]
    name = f"{second.label[:1].upper()}{second.label[1:]}"
    if math.isnan(second.value):
        return [f"{name} diverged."]
    return [f"{name} with {_value(second)} cannot be distinguished from it (compared {gain.pairs})."]


def _gap(gain: Difference, score: str) -> str:
    """A difference with its interval; accuracies in percentage points."""
    shown = with_interval(gain.mean, gain.ci95, score).replace(" %", " points")
    return f"{shown} (compared {gain.pairs})"


def conditions(group: Group) -> str:
    """The conditions under which the numbers in the table were measured."""
    found = [
        (r.label, words)
        for r in group.rows
        if not r.seeds
        for words in (
            diverged(r.measurement.diverged_tasks, r.measurement.tasks),
            broken(r.measurement.broken_trajectories),
        )
    ]
    seeds = " Rows of several seeds: mean ± standard deviation over seeds." * any(r.seeds for r in group.runs)
    return _measured_how(group) + seeds + "".join(f" {label}: {words}." for label, words in found if words)


def adaptation_caption(group: Group) -> str:
    """What the figure of adaptation shows."""
    returns = group.runs[0].score == "return"
    score, step = ("Undiscounted return", "update") if returns else ("Score on queries", "inner step")
    spread = ", or for several seeds the standard deviation" if any(r.seeds for r in group.runs) else ""
    return f"{score} after each {step}; bands are 95 % intervals of the mean over tasks{spread}."


def training_caption(group: Group) -> str:
    """What the figure of training shows."""
    words = ["Means over each block of meta-steps."]
    algorithms = {run.trained.config.algorithm: run.trained.config.spec for run in group.runs}
    logged = [name for run in group.members for record in run.metrics for name in record]
    if (
        len(algorithms) > 1
        and group.runs[0].score != "return"
        and f"validation_{group.runs[0].score}" in logged
    ):
        reptile = any(not spec.reads_query for spec in algorithms.values())
        whose = " (Reptile's is that of its last inner step)" if reptile else ""
        words.append(f"The outer loss differs between algorithms{whose}: compare them by validation.")
    lost = [text for run in group.members if (text := _validation_lost(run))]
    if lost:
        words.append(f"Validation excludes tasks that diverged: {', '.join(lost)}.")
    return " ".join(words)


def _validation_lost(run: Result) -> str:
    """How many tasks diverged in the worst validation of a run; empty if none ever did."""
    maximum = max((record.get("validation_diverged", 0) for record in run.metrics), default=0)
    tasks = run.trained.config.evaluation.validation_tasks
    return f"{run.label} up to {round(maximum)} of {tasks}" if maximum else ""


def _measured_how(group: Group) -> str:
    """The conditions without the tasks that diverged."""
    found = group.members[0].measurement
    if isinstance(found, ReturnMeasurement):
        return (
            f"Mean ± 95 % interval over {counted(found.tasks, 'held-out task')}, drawn with seed {found.seed}; "
            f"{counted(found.trajectories, 'trajectory', 'trajectories')} for each update"
            f"{', more where they end early' if found.restarts else ''}. "
            "Untrained: the policy of the first run before any training, adapted in the same way."
        )
    kinds = {
        "accuracy": "tasks of test classes, which were not used in training",
        "loss": "tasks: waves that were not used in training",
    }
    table = group.runs[0].trained.config.data.spec.needs_file
    where = "groups of the table that were not used in training" if table else kinds[group.runs[0].score]
    return (
        f"Mean ± 95 % interval over {grouped(found.tasks)} {where}, drawn with seed {found.seed}. "
        + (
            "Normalisation names the batch that provides a query's statistics: all queries of the task together "
            "(transductive), the query with the support set (inductive), or the support set alone (support). "
            if group.normalizes
            else ""
        )
        + "Untrained: the network of the first run before any training, adapted in the same way."
    )
