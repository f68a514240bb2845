"""The verdict on a group of runs in sentences with numbers."""

from innerloop.io.text import counted, diverged, with_interval
from innerloop.report.measurements import Group, Result
from innerloop.training.measurement import ReturnMeasurement


def verdict(group: Group) -> str:
    """How the runs compare with the untrained network and with each other."""
    best, *others = sorted(group.runs, key=lambda run: group.results.index(run))
    return " ".join([_reached(best), _against_untrained(best, group.baselines), *_ranking(best, others)])


def _reached(best: Result) -> str:
    """What the best run does."""
    found, shots = best.measurement, best.trained.config.data.shots
    steps = counted(found.inner_steps, "inner step")
    value = with_interval(best.value, best.ci95, best.score)
    if best.score == "accuracy":
        what = f"classifies {value} of the queries of new classes correctly"
        return f"After {steps} on {counted(shots, 'example')} of each class, {best.label} {what}."
    before = best.at(0)
    if best.score == "return":
        was = f", from {before[0]:.1f} before adapting" if before else ""
        updates = counted(found.inner_steps, "update")
        return f"After {updates} in a new task, {best.label} reaches a return of {value}{was}."
    was = f", from {before[0]:.2f} before adapting" if before else ""
    return (
        f"After {steps} on {counted(shots, 'point')} of a new wave, {best.label} predicts it with a squared "
        f"error of {value}{was}."
    )


def _against_untrained(best: Result, baselines: list[Result]) -> str:
    """How far the untrained network gets with the same inner loop."""
    if not baselines:
        return ""
    reached = with_interval(baselines[0].value, baselines[0].ci95, best.score)
    word = "no better" if _differ(best, baselines[0]) <= 0 else "still" if best.score == "loss" else "only"
    return (
        f"The same network untrained is at {reached} after the same adaptation, so training {_gained(word)}."
    )


def _gained(word: str) -> str:
    return (
        "has brought no gain that this measurement shows"
        if word == "no better"
        else "is what makes the difference"
    )


def _ranking(best: Result, others: list[Result]) -> list[str]:
    """How the next best compares."""
    if not others:
        return []
    second = others[0]
    value = with_interval(second.value, second.ci95, second.score)
    if _differ(best, second) > 0:
        return [f"Next comes {second.label} with {value}."]
    return [f"{second.label} with {value} cannot be distinguished from it: the intervals overlap."]


def _differ(a: Result, b: Result) -> int:
    """1 if a is better than b beyond both intervals, -1 if worse, else 0."""
    sign = -1 if a.score == "loss" else 1
    gap = sign * (a.value - b.value)
    if abs(gap) <= a.ci95 + b.ci95:
        return 0
    return 1 if gap > 0 else -1


def conditions(group: Group) -> str:
    """The conditions of all numbers in the table."""
    found = [(r.label, diverged(r.measurement.diverged_tasks, r.measurement.tasks)) for r in group.results]
    return _measured_how(group) + "".join(f" {label}: {words}." for label, words in found if words)


def _measured_how(group: Group) -> str:
    """The same without the tasks that diverged."""
    found = group.runs[0].measurement
    if isinstance(found, ReturnMeasurement):
        return (
            f"Mean ± 95 % interval over {counted(found.tasks, 'held-out task')}, drawn with seed {found.seed}; "
            f"{counted(found.trajectories, 'trajectory', 'trajectories')} for each update"
            f"{', more where they end early' if found.restarts else ''}. "
            "Untrained is the policy of the first run before any training, adapted in the same way."
        )
    images = group.runs[0].score == "accuracy"
    where = "test classes, which no training saw" if images else "waves that no training saw"
    return (
        f"Mean ± 95 % interval over {counted(found.tasks, 'task')} of {where}, drawn with seed {found.seed}. "
        + (
            "Normalisation names the batch that gives a query's statistics: transductive is all queries of the task "
            "together, inductive the query with the support set, support the support set alone. "
            if images
            else ""
        )
        + "Untrained is the network of the first run before any training, adapted in the same way."
    )
