"""A trained initialisation with the experiment that it belongs to, and the numbers that are reported of it."""

import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import jax
import numpy as np

from innerloop.config.schema import Config, Normalization
from innerloop.engine.evaluate import Curve, join, steps_to_record
from innerloop.training.supervised import Experiment
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
    watch: Callable[[int, int], None] = lambda done, total: None,
) -> dict[str, Any]:
    """The adaptation curve on held-out tasks as a plain record (None: as the config says).

    `accuracy` (or `loss` for regression) and `ci95` are those after the last step; `curve` has every recorded step.
    `watch(done, total)` is told the tasks done so far.
    """
    changes = {"tasks": tasks, "steps": steps, "queries": queries, "normalization": normalization}
    changed = replace(trained.config.evaluation, **{k: v for k, v in changes.items() if v is not None})
    data = replace(trained.config.data, shots=trained.config.data.shots if shots is None else shots)
    inner = trained.config.inner
    inner = inner if learning_rate is None else replace(inner, learning_rate=learning_rate)
    e = replace(
        trained.experiment, config=replace(trained.config, evaluation=changed, data=data, inner=inner)
    )
    curves: list[Curve] = []
    begun, done = time.monotonic(), 0
    run = e.evaluator(e.held_out_tasks(part), tasks=changed.tasks, record=steps_to_record(changed.steps))
    for curve in run(trained.params, key_of(e, seed, part)):
        curves.append(curve)
        done += len(next(iter(curve.scores.values())))
        watch(done, changed.tasks)
    make = record_of_returns if e.config.reinforcement else record_of
    return make(trained, e.config, join(curves), seed, part, time.monotonic() - begun)


def key_of(experiment: Experiment, seed: int, part: str) -> jax.Array:
    """The key of the tasks. Tasks of no classes (sinusoids, environments) differ between parts by their key alone."""
    key = jax.random.key(seed)
    if experiment.classification or part == "test":
        return key
    return jax.random.fold_in(key, ("validation", "train").index(part))


def record_of(
    trained: Trained, config: Config, curve: Curve, seed: int, part: str, seconds: float
) -> dict[str, Any]:
    """One measurement with everything that it depends on."""
    headline = "accuracy" if "accuracy" in curve.scores else "loss"
    by_step = {
        name: {"mean": curve.mean(name).tolist(), "ci95": curve.ci95(name).tolist()} for name in curve.scores
    }
    return {
        headline: by_step[headline]["mean"][-1],
        "ci95": by_step[headline]["ci95"][-1],
        "tasks": len(curve.scores[headline]),
        "normalization": config.evaluation.normalization,
        "ways": config.data.ways,
        "shots": config.data.shots,
        "queries_per_class": config.evaluation.queries,
        "inner_steps": config.evaluation.steps,
        "inner_learning_rate": config.inner.learning_rate,
        "seed": seed,
        "classes": part,
        "diverged_tasks": int((~np.isfinite(curve.scores["loss"][:, -1])).sum()),
        "source": trained.source,
        "preset": config.name,
        "algorithm": config.algorithm,
        "trained_meta_steps": trained.facts.get("meta_steps"),
        "seconds": round(seconds, 2),
        "curve": {"steps": list(curve.steps), **by_step},
    }


def reward_of(config: Config) -> str:
    """What a policy is paid for, in a word: navigation's reward, or a body's goal."""
    return config.data.spec.goal or config.rl.reward


def record_of_returns(
    trained: Trained, config: Config, curve: Curve, seed: int, part: str, seconds: float
) -> dict[str, Any]:
    """The same in reinforcement learning: undiscounted returns after 0..n updates with their intervals."""
    mean, ci95 = curve.mean("return").tolist(), curve.ci95("return").tolist()
    return {
        "returns": mean,
        "ci95": ci95,
        "tasks": len(curve.scores["return"]),
        "updates": list(curve.steps),
        "trajectories": config.rl.test_trajectories,
        "restarts": config.rl.test_restarts,
        "horizon": config.rl.horizon,
        "reward": reward_of(config),
        "inner_steps": config.evaluation.steps,
        "inner_learning_rate": config.inner.learning_rate,
        "later_learning_rate": config.inner.learning_rate * config.rl.test_lr_decay,
        "seed": seed,
        "classes": part,
        "diverged_tasks": int((~np.isfinite(curve.scores["return"]).all(1)).sum()),
        "source": trained.source,
        "preset": config.name,
        "algorithm": config.algorithm,
        "trained_meta_steps": trained.facts.get("meta_steps"),
        "seconds": round(seconds, 2),
    }
