"""Measures a trained initialisation on held-out tasks."""

import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any, get_args

from innerloop.config.bounds import SEED, check_number
from innerloop.config.schema import Config, Normalization
from innerloop.engine.evaluation.curve import Curve, join
from innerloop.engine.evaluation.evaluate import number_of_tasks
from innerloop.errors import InnerloopError, check_choice
from innerloop.io.untrusted import JsonObject
from innerloop.parallel.precision import available, products
from innerloop.tasks.tables.group_tasks import GroupTasks
from innerloop.training.experiments.experiment import Split, held_out_key
from innerloop.training.measurement import Band, Measurement, ReturnMeasurement, ScoreMeasurement
from innerloop.training.trained import Trained


def measure(
    trained: Trained,
    *,
    num_tasks: int | None = None,
    steps: int | None = None,
    shots: int | None = None,
    queries: int | None = None,
    normalization: Normalization | None = None,
    rotations: bool | None = None,
    learning_rate: float | None = None,
    seed: int = 0,
    split: Split = "test",
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> Measurement:
    """Measure the adaptation curve on held-out tasks.

    Args:
        trained: from `train` or `load_trained`.
        num_tasks: the number of tasks, at least 2 (None, here and below: as in the config of the training).
        steps: the number of inner steps.
        shots: the examples per class, or per task, of the support set.
        queries: the same for the query set.
        normalization: whose statistics normalise a query: `transductive`, `inductive` or `support`.
        rotations: whether every class turned by 90, 180 and 270 degrees is a class of its own.
        learning_rate: the inner step size.
        seed: for drawing the tasks, 0 to 2**32 - 1.
        split: `test`, `validation` or `train`: from which classes, or groups of a table, the tasks are drawn.
        on_progress: called with the number of tasks done so far, and their total.

    Returns:
        The scores after each recorded number of inner steps, with 95 % intervals, and the conditions.

    Raises:
        InnerloopError: if an argument is out of bounds, `split` is unknown, the classes have too few examples, or
            `learning_rate` is given although the step sizes are learned.
    """
    if not isinstance(trained, Trained):
        got, hint = type(trained).__name__, "pass innerloop.load_trained(source)"
        raise InnerloopError("measure", "needs a trained model", got=got, hint=hint)
    if learning_rate is not None and trained.config.spec.learns_rates:
        wrong, hint = f"the step sizes of {trained.config.spec.title} are learned", "leave it out"
        raise InnerloopError("measure: `learning_rate`", wrong, got=learning_rate, hint=hint)
    check_number("measure: `seed`", seed, SEED, integer=True)
    check_choice("measure", "split", split, get_args(Split))
    changes = {"tasks": num_tasks, "steps": steps, "queries": queries, "normalization": normalization}
    changes["rotations"] = rotations
    config = replace(
        trained.config,
        evaluation=changed(trained.config.evaluation, changes),
        data=changed(trained.config.data, {"shots": shots}),
        inner=changed(trained.config.inner, {"learning_rate": learning_rate}),
    )
    e, begun, curves = trained.experiment.with_config(config), time.monotonic(), list[Curve]()
    held_out = e.held_out_tasks(split)
    total = number_of_tasks(held_out, config.evaluation.tasks)
    with products(config.precision):
        for curve in e.evaluator(held_out, num_tasks=total)(trained.params, held_out_key(seed, split)):
            curves.append(curve)
            on_progress(sum(c.tasks for c in curves), total)
    make = returns_of if config.reinforcement else scores_of
    found = make(trained, config, join(curves), seed, split)
    sizes = held_out.largest() if isinstance(held_out, GroupTasks) else {}
    return replace(found, **sizes, seconds=round(time.monotonic() - begun, 2))


def changed(settings: Any, changes: dict[str, object]) -> Any:
    """The settings with the changes that are not None."""
    return replace(settings, **{name: value for name, value in changes.items() if value is not None})


def common(trained: Trained, config: Config, curve: Curve, seed: int, split: str) -> JsonObject:
    """The fields common to all measurements, except `score` and `task_scores`."""
    return {
        "steps": list(curve.steps),
        "curves": {n: Band(curve.mean(n).tolist(), curve.ci95(n).tolist()) for n in curve.scores},
        "tasks": curve.tasks,
        "diverged_tasks": int(curve.diverged.sum()),
        "inner_steps": config.evaluation.steps,
        "inner_learning_rate": config.inner.learning_rate,
        "seed": seed,
        "precision": available(config.precision),
        "classes": split,
        "source": trained.source,
        "preset": config.name,
        "algorithm": config.algorithm,
        "trained_meta_steps": trained.facts.get("meta_steps"),
        "seconds": 0.0,
    }


def scores_of(trained: Trained, config: Config, curve: Curve, seed: int, split: str) -> ScoreMeasurement:
    """The measurement of accuracy or loss."""
    score = "accuracy" if "accuracy" in curve.scores else "loss"
    return ScoreMeasurement(
        **common(trained, config, curve, seed, split),
        score=score,
        task_scores=curve.scores[score][:, -1],
        normalization=config.evaluation.normalization if config.model.normalizes else None,
        ways=config.data.ways if config.data.spec.kind == "images" else None,
        shots=config.data.shots,
        queries=config.evaluation.queries,
        rotations=config.evaluation.rotations if config.data.rotations else None,
    )


def returns_of(trained: Trained, config: Config, curve: Curve, seed: int, split: str) -> ReturnMeasurement:
    """The measurement of returns."""
    return ReturnMeasurement(
        **common(trained, config, curve, seed, split),
        score="return",
        broken_trajectories=int(curve.counts["broken"].sum()) if curve.counts else 0,
        task_scores=curve.scores["return"][:, -1],
        trajectories=config.rl.test_trajectories,
        restarts=config.rl.test_restarts,
        horizon=config.rl.horizon,
        reward=config.data.spec.goal or config.rl.reward,  # a body's goal, or navigation's reward
        later_learning_rate=config.inner.learning_rate * config.rl.test_lr_decay,
    )
