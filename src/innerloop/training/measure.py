"""The numbers that are reported of a trained initialisation."""

import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import jax
import numpy as np

from innerloop.config.schema import Config, Normalization
from innerloop.engine.evaluate import Curve, join
from innerloop.errors import InnerloopError
from innerloop.training.measurement import Band, Measurement, ReturnMeasurement, ScoreMeasurement
from innerloop.training.trained import Trained


def measure(
    trained: Trained,
    *,
    tasks: int | None = None,
    steps: int | None = None,
    shots: int | None = None,
    queries: int | None = None,
    normalization: Normalization | None = None,
    learning_rate: float | None = None,
    seed: int = 0,
    part: str = "test",
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> Measurement:
    """The adaptation curve on held-out tasks (None: as the config says).

    `on_progress(done, total)` is called with the number of tasks done so far. Raises InnerloopError for a
    `learning_rate` where step sizes are learned.
    """
    if learning_rate is not None and trained.config.spec.learns_rates:
        wrong, do = f"the step sizes of {trained.config.spec.title} are learned", "leave it out"
        raise InnerloopError("measure: `learning_rate`", wrong, got=learning_rate, do=do)
    changes = {"tasks": tasks, "steps": steps, "queries": queries, "normalization": normalization}
    config = replace(
        trained.config,
        evaluation=changed(trained.config.evaluation, changes),
        data=changed(trained.config.data, {"shots": shots}),
        inner=changed(trained.config.inner, {"learning_rate": learning_rate}),
    )
    e, begun, curves = trained.experiment.with_config(config), time.monotonic(), list[Curve]()
    run = e.evaluator(e.held_out_tasks(part), tasks=config.evaluation.tasks)
    for curve in run(trained.params, key_of(config, seed, part)):
        curves.append(curve)
        on_progress(sum(c.tasks for c in curves), config.evaluation.tasks)
    make = returns_of if config.reinforcement else scores_of
    found = make(trained, config, join(curves), seed, part)
    return replace(found, seconds=round(time.monotonic() - begun, 2))


def changed(settings: Any, changes: dict[str, Any]) -> Any:
    """The settings with those changes that are not None."""
    return replace(settings, **{name: value for name, value in changes.items() if value is not None})


def key_of(config: Config, seed: int, part: str) -> jax.Array:
    """The key of the tasks. Tasks of no classes (sinusoids, environments) differ between parts by their key alone."""
    key = jax.random.key(seed)
    if config.data.spec.kind == "images" or part == "test":
        return key
    return jax.random.fold_in(key, ("validation", "train").index(part))


def common(trained: Trained, config: Config, curve: Curve, seed: int, part: str) -> dict[str, Any]:
    """The fields of every measurement but `score` and `diverged_tasks`."""
    return {
        "steps": list(curve.steps),
        "curves": {n: Band(curve.mean(n).tolist(), curve.ci95(n).tolist()) for n in curve.scores},
        "tasks": curve.tasks,
        "inner_steps": config.evaluation.steps,
        "inner_learning_rate": config.inner.learning_rate,
        "seed": seed,
        "classes": part,
        "source": trained.source,
        "preset": config.name,
        "algorithm": config.algorithm,
        "trained_meta_steps": trained.facts.get("meta_steps"),
        "seconds": 0.0,
    }


def scores_of(trained: Trained, config: Config, curve: Curve, seed: int, part: str) -> ScoreMeasurement:
    """Accuracy or loss; a task diverged if its last loss is not finite."""
    return ScoreMeasurement(
        **common(trained, config, curve, seed, part),
        score="accuracy" if "accuracy" in curve.scores else "loss",
        diverged_tasks=int((~np.isfinite(curve.scores["loss"][:, -1])).sum()),
        normalization=config.evaluation.normalization,
        ways=config.data.ways,
        shots=config.data.shots,
        queries_per_class=config.evaluation.queries,
    )


def returns_of(trained: Trained, config: Config, curve: Curve, seed: int, part: str) -> ReturnMeasurement:
    """Returns; a task diverged if one of them is not finite."""
    return ReturnMeasurement(
        **common(trained, config, curve, seed, part),
        score="return",
        diverged_tasks=int((~np.isfinite(curve.scores["return"]).all(1)).sum()),
        trajectories=config.rl.test_trajectories,
        restarts=config.rl.test_restarts,
        horizon=config.rl.horizon,
        reward=config.data.spec.goal or config.rl.reward,  # a body's goal, or navigation's reward
        later_learning_rate=config.inner.learning_rate * config.rl.test_lr_decay,
    )
