"""What decides the bits of a run of `innerloop.fit`, as JSON: a run is resumed with the same alone.

The length of the run, the distance of its checkpoints and its patience are not among it: they may change.
"""

import json
from typing import Any

import jax
import jax.numpy as jnp

from innerloop.engine.algorithm import loss_key
from innerloop.engine.evaluate import Score
from innerloop.engine.optimizer import descend
from innerloop.engine.outer import MetaState, OuterLoop
from innerloop.engine.types import TaskDistribution
from innerloop.errors import InnerloopError
from innerloop.io.untrusted import JsonObject, read_object
from innerloop.training.best_validation import BestRule
from innerloop.training.own_run import OwnRun, with_jax_arrays
from innerloop.training.program_digest import arrays_within, program_digest
from innerloop.training.storage.provenance import changed, changes, environment
from innerloop.training.storage.run_directory import RunFolder

NAME = "fit.json"

PROGRAMS = {
    "algorithm": "the algorithm, its loss or its inner loop",
    "optimizer": "the optimizer or one of its step sizes",
    "tasks": "the tasks or their data",
    "validation": "the validation tasks or their data",
    "score": "the score",
}
"""What the digest of each program stands for, in words."""


def settings_of(run: OwnRun, state: MetaState, rule: BestRule | None, chunk: int | None) -> JsonObject:
    """Everything known of a run, `state` being that before training."""
    schedule, algorithm = run.schedule, run.loop.algorithm
    settings: JsonObject = {"seed": run.seed, "meta_batch": run.loop.meta_batch, "chunk": chunk}
    settings |= {"algorithm": type(algorithm).__name__, "inner_steps": algorithm.inner.steps}
    settings |= {"log_every": schedule.log_every}
    if rule is not None:
        settings |= {"validate_every": schedule.validate_every, "validation_tasks": schedule.validation_tasks}
        settings |= {"monitor": rule.monitor, "mode": rule.mode}
    arrays = {"parameters": arrays_within(state.params), "optimizer": arrays_within(state.opt_state)}
    return settings | arrays | {"programs": programs_of(run, state)}


def programs_of(run: OwnRun, state: MetaState) -> dict[str, str]:
    """Digests of what is computed; none of tasks that an iterator brings."""
    found = {"optimizer": _optimizer(run, state)}
    if isinstance(run.loop, OuterLoop):
        found |= {"tasks": _drawn(run.tasks, state), "algorithm": _algorithm(run, state)}
    if run.validation is not None:
        found["validation"] = _drawn(run.validation.tasks, state)
        if run.validation.score is not None:
            found["score"] = _scored(run, run.validation.tasks, run.validation.score, state)
    return found


def _optimizer(run: OwnRun, state: MetaState) -> str:
    zero, params = jnp.zeros(()), state.params
    step = lambda grads, moments, params: descend(
        run.loop.optimizer, grads, moments, params, zero, lambda params: zero
    )
    return program_digest(step, params, state.opt_state, params)


def _algorithm(run: OwnRun, state: MetaState) -> str:
    task = jax.eval_shape(with_jax_arrays(run.tasks).sample, state.key)
    key = loss_key(state.key) if run.loop.algorithm.random else None
    meta_grad = lambda params, task, step: run.loop.algorithm.at(step).meta_grad(params, task, key=key)
    return program_digest(meta_grad, state.params, task, state.step)


def _drawn(tasks: Any, state: MetaState) -> str:
    return program_digest(with_jax_arrays(tasks).sample, state.key)


def _scored(run: OwnRun, tasks: TaskDistribution, score: Score, state: MetaState) -> str:
    task = jax.eval_shape(with_jax_arrays(tasks).sample, state.key)
    key = loss_key(state.key) if run.loop.algorithm.random else None
    adapt = lambda params, task: run.loop.algorithm.adapt(params, task.support, key=key)
    return program_digest(lambda params, task: score(adapt(params, task), task), state.params, task)


def text_of(settings: JsonObject) -> str:
    """As it lies in the run's folder."""
    return json.dumps(settings, indent=2) + "\n"


def check_same(run: RunFolder, now: JsonObject) -> None:
    """Raise InnerloopError, naming the first setting, unless the run in the folder was begun with the same settings.

    With other versions or devices programs have other traces, so there they are not compared; a warning names those.
    """
    then = read_object(run.path / NAME, follow=False)
    if changes(run.known(), environment()):
        then, now = ({**settings, "programs": {}} for settings in (then, now))
    found = changed(then, now)
    if not found:
        return
    (name, (before, after)), *_ = found.items()
    program = PROGRAMS.get(name.removeprefix("programs."), "") if name.startswith("programs.") else ""
    wrong = f"{program} changed since the run in {run.path} began"
    if not program:
        wrong = (
            f"the run in {run.path} has `{name}` {before}, got {'nothing' if after == 'unknown' else after}"
        )
    raise InnerloopError("resume", wrong, do="give what it began with, or another folder")
